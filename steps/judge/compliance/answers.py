"""TEST01: are a system's answers the same in performance mode as in accuracy mode?

Both logs are streamed: an accuracy log of stable-diffusion-xl has 31 GB.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError
from steps.base.untrusted import Damaged
from steps.mlperf.loadgen_log import entries_of

FORMATS: Mapping[str, str] = {"byte": "<b", "float32": "<f", "int32": "<i", "int64": "<q"}
"""Types of an answer's elements (compliance/TEST01/verify_accuracy.py, v5.1.1)."""

_ENTRY = re.compile(rb'\{.{0,64}"qsl_idx"\s*:\s*(\d+)\s*,\s*"data"\s*:\s*"([0-9A-Fa-f]{0,16})')

First = int | float | None


@dataclass(frozen=True)
class Comparison:
    """The comparison of the two logs. `mismatched` is the first sample that differs, if one."""

    accuracy_entries: int
    duplicates: int
    duplicates_differing: int
    performance_entries: int
    matched: int
    mismatches: int
    missing: int
    mismatched: int | None

    def passed(self) -> bool:
        return self.mismatches == 0 and self.matched > 0

    def text(self) -> str:
        """verify_accuracy.txt as the official script prints it."""
        counts = (
            ("num_acc_log_entries", self.accuracy_entries),
            ("num_acc_log_duplicate_keys", self.duplicates),
            ("num_acc_log_data_mismatch", self.duplicates_differing),
            ("num_perf_log_entries", self.performance_entries),
            ("num_perf_log_qsl_idx_match", self.matched),
            ("num_perf_log_data_mismatch", self.mismatches),
            ("num_missing_qsl_idxs", self.missing),
        )
        lines = [f"{name} = {count}" for name, count in counts]
        return "\n".join([*lines, "TEST PASS" if self.passed() else "TEST FAIL"]) + "\n"


def compare(accuracy_log: Path, test_log: Path, dtype: str) -> Comparison:
    """Compare the first element of every answer of the test with the accuracy run's.

    Raises UserError for a log that can't be read or is cut off.
    """
    answered: dict[int, list[First]] = {}
    performance_entries = 0
    for index, first in _entries(test_log, dtype):
        performance_entries += 1
        answered.setdefault(index, []).append(first)
    seen: dict[int, First] = {}
    accuracy_entries = duplicates = differing = 0
    for index, first in _entries(accuracy_log, dtype):
        accuracy_entries += 1
        if index in seen:
            duplicates += 1
            differing += first != seen[index]
        else:
            seen[index] = first
    known = {index: firsts for index, firsts in answered.items() if index in seen}
    wrong = {
        index: sum(first != seen[index] for first in firsts) for index, firsts in known.items()
    }
    matched = sum(map(len, known.values()))
    return Comparison(
        accuracy_entries=accuracy_entries,
        duplicates=duplicates,
        duplicates_differing=differing,
        performance_entries=performance_entries,
        matched=matched,
        mismatches=sum(wrong.values()),
        missing=performance_entries - matched,
        mismatched=next((index for index, count in wrong.items() if count), None),
    )


def _entries(path: Path, dtype: str) -> Iterator[tuple[int, First]]:
    try:
        for number, text in entries_of(path):
            found = _ENTRY.match(text)
            if not found or not text.endswith(b"}"):
                raise UserError(f"{path}:{number}: not LoadGen's answer; use the untruncated log")
            yield int(found[1]), _first(found[2], dtype)
    except Damaged as damage:
        where = f"{path}:{damage.line}" if damage.line else str(path)
        raise UserError(f"{where}: {damage}; use the untruncated log") from damage


def _first(digits: bytes, dtype: str) -> First:
    """The first element; None for an answer without one."""
    form = FORMATS[dtype]
    size = struct.calcsize(form)
    data = bytes.fromhex(digits[: 2 * size].decode("ascii")) if len(digits) >= 2 * size else b""
    if not data:
        return None
    value: int | float = struct.unpack(form, data)[0]
    return value
