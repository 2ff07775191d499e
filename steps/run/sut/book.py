"""LoadGen's samples and their answers' times: one column per fact; a sample's number is its row.

Columns and not objects: an Offline query can hold millions of samples, and an object for each would
delay the engines.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from steps.run.engines.engine import Batch

NEVER = math.nan


class Sample(NamedTuple):
    """One query sample of LoadGen's; times in s since the test began, None before."""

    sample_index: int
    issued_s: float
    first_token_s: float | None
    completed_s: float | None
    output_tokens: int


class Book:
    """Samples in LoadGen's order. One thread issues, another one notes answers."""

    def __init__(self) -> None:
        self.query_ids: list[int] = []
        self.indices: list[int] = []
        self._issued_s = array("d")
        self._first_token_s = array("d")
        self._completed_s = array("d")
        self._output_tokens = array("q")
        self.completed = 0
        """How many samples are answered."""

    def __len__(self) -> int:
        return len(self.indices)

    def issue(self, query_ids: Sequence[int], indices: Sequence[int], now_s: float) -> None:
        """Note LoadGen's samples. Their indices are added last: `len` counts complete rows."""
        count = len(query_ids)
        self.query_ids.extend(query_ids)
        self._issued_s.extend(array("d", [now_s]) * count)
        self._first_token_s.extend(array("d", [NEVER]) * count)
        self._completed_s.extend(array("d", [NEVER]) * count)
        self._output_tokens.extend(array("q", [0]) * count)
        self.indices.extend(indices)

    def has_first_token(self, number: int) -> bool:
        return self._first_token_s[number] == self._first_token_s[number]  # NEVER equals nothing

    def note_first_tokens(self, numbers: Iterable[int], now_s: float) -> None:
        for number in numbers:
            self._first_token_s[number] = now_s

    def note_answers(self, answers: Batch, now_s: float) -> None:
        completed_s, output_tokens = self._completed_s, self._output_tokens
        for number, count in zip(answers.numbers, answers.counts, strict=True):
            completed_s[number] = now_s
            output_tokens[number] = count
        self.completed += len(answers)

    @property
    def output_tokens(self) -> int:
        return sum(self._output_tokens)

    def samples(self) -> Iterator[Sample]:
        for number, index in enumerate(self.indices):
            yield Sample(
                index,
                self._issued_s[number],
                _moment(self._first_token_s[number]),
                _moment(self._completed_s[number]),
                self._output_tokens[number],
            )

    def unanswered(self) -> list[Sample]:
        """Unanswered samples in LoadGen's order: the first one has waited longest."""
        return [sample for sample in self.samples() if sample.completed_s is None]


def _moment(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds
