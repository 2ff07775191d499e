"""Which answers of a log are scored: those of a whole accuracy run, or to the samples of a test."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from steps.base.errors import UserError
from steps.base.untrusted import Damaged
from steps.mlperf.loadgen_log import entries_of

_INDEX = re.compile(rb'"qsl_idx"\s*:\s*(\d+)')
HEAD_BYTES = 128
"""The head of an entry: its numbers come before its data."""


class Sampled(Protocol):
    """An answer to one sample of the dataset."""

    @property
    def sample_index(self) -> int: ...


Given = TypeVar("Given", bound=Sampled)


def chosen(
    answers: Iterable[Given], size: int, log: Path, only: frozenset[int] | None = None
) -> Iterator[Given]:
    """In the order of the log. `only`: the first answer to each of these samples.

    Without it each of `size` samples must be answered exactly once. Raises UserError otherwise.
    """
    seen = bytearray(size)
    wanted = frozenset(range(size)) if only is None else only
    for answer in answers:
        index = answer.sample_index
        if not 0 <= index < size:
            raise UserError(f"{log}: the dataset has {size} samples, but none is number {index}")
        if index not in wanted or (only is not None and seen[index]):
            continue
        if seen[index]:
            raise UserError(f"{log}: sample {index} is answered twice; use an accuracy run's log")
        seen[index] = 1
        yield answer
    count = sum(seen)
    if count != len(wanted):
        first = min(index for index in wanted if index >= size or not seen[index])
        raise UserError(
            f"{log}: {count} samples of {len(wanted)} are answered (sample {first} is not); use "
            "the untruncated log of an accuracy run"
        )


def samples_of(log: Path) -> frozenset[int]:
    """The samples that a log answers; raises UserError for one that is cut off or answers none."""
    found: set[int] = set()
    try:
        for number, text in entries_of(log):
            index = _INDEX.search(text, 0, HEAD_BYTES)
            if index is None:
                raise Damaged("not an answer of LoadGen's", number)
            found.add(int(index[1]))
    except Damaged as damage:
        where = f"{log}:{damage.line}" if damage.line else str(log)
        raise UserError(f"{where}: {damage}; use the untruncated log of the test's run") from damage
    if not found:
        raise UserError(f"{log} answers no sample; use the log of the test's run")
    return frozenset(found)
