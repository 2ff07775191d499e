"""mlperf_log_detail.txt, read as a stream by one reader for both uses.

`read_detail` is for logs of our own runs, and of those that are known to be good: it keeps every
record, and any damage raises UserError. `examined` is for a stranger's log: damage is part of what
it returns, and memory is bounded whatever the log's size.
"""

import math
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.untrusted import Damaged, lines_of, shown
from steps.mlperf.loadgen import P99, TPOT_KEY, TTFT_KEY
from steps.mlperf.loadgen_log import Record, record_of

KEPT = 3
"""How many errors, and how many damages of a kind, a stranger's log is known by."""

LIMIT = 2**64
"""LoadGen's integers have at most 64 bits."""

MAX_VALUE_TEXT = 300
MAX_KEY_BYTES = 100
LONG_LINE_BYTES = 1000
INTERVAL = ("power_begin", "power_end")

_NUMBERS = [
    "qsl_reported_total_count",
    "qsl_reported_performance_count",
    "requested_min_duration_ms",
    "requested_min_query_count",
    "requested_performance_sample_count_override",
    "requested_server_ttft_latency",
    "requested_server_tpot_latency",
    "effective_samples_per_query",
    "effective_target_qps",
    "effective_target_latency_ns",
    "effective_min_duration_ms",
    "effective_min_query_count",
    "effective_min_sample_count",
    "effective_qsl_rng_seed",
    "effective_sample_index_rng_seed",
    "effective_schedule_rng_seed",
    "effective_accuracy_log_rng_seed",
    "effective_accuracy_log_probability",
    "effective_accuracy_log_sampling_target",
    "effective_performance_issue_same_index",
    "effective_performance_sample_count",
    "effective_accuracy_sample_count",
    "result_query_count",
    "result_samples_per_second",
    "result_completed_samples_per_sec",
    "result_tokens_per_second",
    "result_completed_tokens_per_second",
    "result_max_latency_ns",
    TTFT_KEY.format(P99),
    TPOT_KEY.format(P99),
    "early_stopping_latency_ss",
    "early_stopping_latency_ms",
    "result_90.00_percentile_latency_ns",
    "result_qps_without_loadgen_overhead",
    "result_mean_query_latency_ns",
    "num_errors",
]
_FLAGS = [
    "requested_use_token_latencies",
    "effective_performance_issue_unique",
    "effective_performance_issue_same",
    "effective_sample_concatenate_permutation",
    "result_perf_constraints_met",
    "result_min_duration_met",
    "result_min_queries_met",
    "early_stopping_met",
]
_TEXTS = [
    "loadgen_version",
    "loadgen_build_date_utc",
    "loadgen_git_status_message",
    "test_datetime",
    "sut_name",
    "requested_scenario",
    "effective_scenario",
    "effective_test_mode",
    "power_begin",
    "power_end",
    "result_validity",
]
KINDS = {
    **dict.fromkeys(_NUMBERS, "number"),
    **dict.fromkeys(_FLAGS, "flag"),
    **dict.fromkeys(_TEXTS, "text"),
}
"""The keys that checks need, and the type of each value."""


@dataclass(frozen=True)
class Entry:
    """One record's key and value: `line` counts from 1."""

    line: int
    key: str
    value: Any

    @property
    def words(self) -> str:
        return f"{self.key}: {shown(self.value)}"


@dataclass
class Detail:
    """A log's values (the first of each key counts, as for the official checker) and its damage.

    `whole`: every record is kept, and not only those of KINDS and the first errors. `damage`,
    `mistyped` and `conflicts` hold (line, sentence); `errors` are LoadGen's, of `total_errors`.
    `intervals` counts the pairs power_begin and power_end; of the second the last one counts, which
    the log's own clock says at `ended_ms`.
    """

    path: Path = Path()
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    errors: list[Entry] = field(default_factory=list)
    warnings: list[Entry] = field(default_factory=list)
    total_errors: int = 0
    damage: list[tuple[int, str]] = field(default_factory=list)
    mistyped: list[tuple[int, str]] = field(default_factory=list)
    conflicts: list[tuple[int, str]] = field(default_factory=list)
    records: int = 0
    end_ms: float = 0.0
    intervals: int = 0
    ended_ms: float = 0.0
    whole: bool = False

    def get(self, key: str) -> Any:
        """The value; raises UserError if the log has no such key."""
        if key not in self.values:
            raise UserError(f"{self.path} has no {key}; it is truncated or not a log of such a run")
        return self.values[key]

    def number(self, key: str) -> float | None:
        """None if the log has no such number."""
        value = self.values.get(key)
        return None if value is None else value  # int or float: `KINDS` was checked on reading

    def flag(self, key: str) -> bool | None:
        """None if the log has no such flag."""
        return self.values.get(key)

    def text(self, key: str) -> str:
        """Empty if the log has no such text."""
        return str(self.values.get(key, ""))

    def line(self, key: str) -> int:
        """Where the value stands; 0 if nowhere."""
        return self.lines.get(key, 0)

    def conflict(self, number: int, what: str) -> None:
        """Keep the first few of them."""
        if len(self.conflicts) < KEPT:
            self.conflicts.append((number, what))

    def span(self) -> tuple[datetime, datetime] | None:
        """When queries were issued and when the last was answered (UTC); None if not logged."""
        begin, end = (utc_time(self.text(key)) for key in ("power_begin", "power_end"))
        return None if begin is None or end is None else (begin, end)


def read_detail(path: Path) -> Detail:
    """Raises UserError for an unreadable file, a damaged record or a value of another type than its
    key's, with its line."""
    detail = Detail(path, whole=True)
    _read(detail)
    for line, what in (*detail.damage, *detail.mistyped):
        raise UserError(f"{path}{f':{line}' if line else ''}: {what}; re-run")
    return detail


def examined(path: Path) -> Detail:
    """Never raises for the file's content: damage is part of the result."""
    detail = Detail(path)
    _read(detail)
    if detail.intervals > 1 and detail.text("effective_test_mode") != "AccuracyOnly":
        what = f"power_begin is there {detail.intervals} times, a performance run loads one set"
        detail.conflicts.append((detail.line("power_begin"), what))
    return detail


def _read(detail: Detail) -> None:
    path = detail.path
    try:
        for number, line in lines_of(path):
            try:
                _take(detail, number, line)
            except Damaged as damage:
                if len(detail.damage) < KEPT:
                    detail.damage.append((number, str(damage)))
    except Damaged as damage:
        detail.damage.append((damage.line, str(damage)))
    if not detail.records and not detail.damage:
        detail.damage.append((0, "it holds no record of LoadGen's"))


INDICES = b'"value": ['
"""loaded_qsl_set's line begins with it and has every sample's index: half of reading two rounds."""

LEADING_ZERO, EMPTY_PLACE = re.compile(rb",0[0-9]"), re.compile(rb",,")
"""JSON has neither. Patterns find them four times as fast as bytes' own `in` and `count`."""


def without_indices(line: bytes) -> bytes:
    """The same record with an empty list in place of one of whole numbers; no check looks at it."""
    start = line.find(INDICES, 0, MAX_KEY_BYTES) + len(INDICES)
    end = line.find(b"]", start)
    inside = line[start:end] if start >= len(INDICES) and end > 0 else b""
    if inside.translate(None, b"0123456789,"):
        return line
    framed = b",%b," % inside
    if LEADING_ZERO.search(framed) or EMPTY_PLACE.search(framed):
        return line
    return line[:start] + line[end:]


def _take(detail: Detail, number: int, line: bytes) -> None:
    short = detail.whole or len(line) < LONG_LINE_BYTES
    record = record_of(line if short else without_indices(line))
    if record is None:
        return
    detail.records += 1
    if _is(record.time_ms, "number"):
        detail.end_ms = max(detail.end_ms, record.time_ms)
    if record.is_error:
        detail.total_errors += 1
        if detail.whole or len(detail.errors) < KEPT:
            detail.errors.append(Entry(number, record.key, record.value))
    elif record.is_warning and detail.whole:
        detail.warnings.append(Entry(number, record.key, record.value))
    kind = KINDS.get(record.key)
    if record.key in INTERVAL:
        _keep_interval(detail, number, record)
    elif kind is not None:
        _keep(detail, number, record.key, record.value, kind)
    elif detail.whole and record.key not in detail.values:
        detail.values[record.key] = record.value
        detail.lines[record.key] = number


def _keep(detail: Detail, number: int, key: str, value: Any, kind: str) -> None:
    if isinstance(value, str) and not detail.whole:
        value = value[:MAX_VALUE_TEXT]
    if key in detail.lines:
        if detail.values.get(key) != value:
            first = f"line {detail.lines[key]} says {shown(detail.values.get(key))}"
            detail.conflict(number, f"{key} is {shown(value)}, but {first}")
        return
    detail.lines[key] = number
    if not _is(value, kind):
        detail.mistyped.append((number, f"{key} is {shown(value)}, no {kind}"))
        return
    detail.values[key] = value


def _keep_interval(detail: Detail, number: int, record: Record) -> None:
    """LoadGen writes the pair for every set of samples that it loads (RunAccuracyMode)."""
    begins, begun = record.key == INTERVAL[0], detail.line(INTERVAL[0]) > detail.line(INTERVAL[1])
    before = detail.values.get(INTERVAL[1])
    if begins == begun:
        detail.conflict(number, f"{record.key} is there twice, without the other between")
    elif begins and before is not None and _before(record.value, before):
        detail.conflict(number, f"the set begins at {shown(record.value)}, before {before}")
    detail.intervals += begins
    if not begins:
        detail.ended_ms = detail.end_ms
    if begins and detail.intervals > 1:
        detail.lines[record.key] = number
        return
    detail.lines.pop(record.key, None)
    _keep(detail, number, record.key, record.value, KINDS[record.key])


def _before(one: Any, other: str) -> bool:
    begin, end = utc_time(str(one)), utc_time(other)
    return begin is not None and end is not None and begin < end


def _is(value: Any, kind: str) -> bool:
    if kind == "number":
        if isinstance(value, float):
            return math.isfinite(value)
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LIMIT
    return isinstance(value, bool if kind == "flag" else str)


_TIME = re.compile(
    r"(\d{1,2})-(\d{1,2})-(\d{4}) (\d{1,2}):(\d{1,2}):(\d{1,2})\.(\d{1,6})", re.ASCII
)


def utc_time(text: str) -> datetime | None:
    """A time as LoadGen writes it for power meters, in UTC (strptime takes long to import)."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    month, day, year, hour, minute, second = map(int, found.groups()[:6])
    fraction = int(found[7].ljust(6, "0"))
    try:
        return datetime(year, month, day, hour, minute, second, fraction, timezone.utc)
    except ValueError:
        return None
