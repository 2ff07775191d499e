"""Compares runs with each other: errors that no single file shows."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise

from steps.mlperf.detail import Detail
from steps.submit.validate.findings import Findings, Severity

SLOWEST, FASTEST = 0.5, 1.25
"""Accuracy-run speed over performance-run speed. Between 0.71 and 1.01 in AMD's v5.1 results: the
accuracy run is short, so its start and end weigh more; Server is paced in both."""

CLOCKS_AGREE = timedelta(minutes=1)
"""Between the log's own clock and the machine's. In 4,524 logs of two rounds: up to 42 s, where an
accuracy log of hours was written after the last answer."""

ROUNDED = timedelta(seconds=1)
ZONE_STEP = timedelta(minutes=15)
ZONES = (timedelta(hours=-12), timedelta(hours=14))
"""Local time's distance from UTC: whole quarters of an hour, between these."""

Span = tuple[datetime, datetime]


@dataclass(frozen=True)
class Run:
    """One LoadGen run. `kind`: "performance", "accuracy" or a test's name."""

    kind: str
    path: str
    loadgen: str
    dirty: bool
    span: Span | None


@dataclass(frozen=True)
class Evidence:
    """One result's values for comparison with others; digests are sha256, "" if absent.

    `inferred_from`: the scenario that its runs were made in if that isn't its own, else "".
    `accuracy_hashes`: accuracy.txt's hashes of the whole accuracy log, `packaged`: the hash of the
    log in the tree. `batched`: its answers are logged as they are ready, in an order of their own.
    """

    path: str
    system: str
    official: str
    scenario: str
    inferred_from: str
    runs: tuple[Run, ...]
    accuracy_hashes: tuple[str, ...]
    packaged: str
    batched: bool
    test_digests: tuple[tuple[str, str], ...]


def run_of(kind: str, path: str, detail: Detail) -> Run:
    """The values of a detail log that are compared."""
    status = detail.text("loadgen_git_status_message").strip()
    return Run(kind, path, detail.text("loadgen_version"), bool(status), detail.span())


def check_times(path: str, detail: Detail, findings: Findings) -> None:
    """Within one log: built, started, issued, answered in this order, by one clock.

    LoadGen writes power_begin and power_end in UTC, after the last answer (loadgen.cc), the time of
    each record by a clock of its own, and test_datetime in local time though a Z follows it
    (utils.cc: CurrentDateTimeISO8601).
    """
    span = detail.span()
    if span is None:
        return
    begin, end = span
    line = detail.line("power_begin")
    try:
        since = timedelta(milliseconds=detail.ended_ms)
        began = end - since
    except OverflowError:
        findings.add("audit-time", path, "its times are out of all reach", line=line)
        return
    if end < begin:
        findings.add("audit-time", path, "the run ends before it begins", line=line)
    elif end - begin > since + ROUNDED:
        what = f"the run took {_seconds(end - begin)} s, its log was begun {_seconds(since)} s ago"
        findings.add("audit-time", path, what, line=detail.line("power_end"))
    started = _time(detail.text("test_datetime"))
    if started and not _is_zone(started - began):
        what = f"the test began at {started:%F %T} of some zone, by its clock at {began:%F %T} UTC"
        findings.add("audit-time", path, what, line=detail.line("test_datetime"))
    built = _time(detail.text("loadgen_build_date_utc"))
    if built and built > end:
        what = f"LoadGen was built at {built:%F %T}, after the run at {begin:%F %T}"
        findings.add("audit-time", path, what, line=detail.line("loadgen_build_date_utc"))


def _seconds(time: timedelta) -> str:
    return f"{time.total_seconds():.1f}"


def _is_zone(offset: timedelta) -> bool:
    """Whether local time can be so far from UTC."""
    nearest = round(offset / ZONE_STEP) * ZONE_STEP
    return abs(offset - nearest) <= CLOCKS_AGREE and ZONES[0] <= nearest <= ZONES[1]


def check_speed(
    path: str, samples: float, accuracy: Detail, rate: float | None, findings: Findings
) -> None:
    """`samples` answered by the accuracy run, `rate` of the performance run in samples/s."""
    span = accuracy.span()
    if span is None or not rate or accuracy.text("effective_test_mode") != "AccuracyOnly":
        return
    seconds = (span[1] - span[0]).total_seconds()
    if seconds <= 0:
        return
    ratio = samples / seconds / rate
    if not SLOWEST <= ratio <= FASTEST:
        what = (
            f"the accuracy run answered {samples / seconds:.4g} samples/s, the performance run "
            f"{rate:.4g} ({ratio:.0%})"
        )
        findings.add("audit-accuracy-speed", path, what)


def check_loadgen(runs: Iterable[Run], path: str, findings: Findings) -> None:
    """Whether the same unchanged LoadGen made all runs of one result."""
    found = [run for run in runs if run.loadgen]
    versions = {run.loadgen for run in found}
    if len(versions) > 1:
        shown = ", ".join(f"{run.kind} {run.loadgen}" for run in found)
        findings.add("audit-loadgen-version", path, shown)
    for run in found:
        if run.dirty:
            what = "LoadGen was built from changed sources"
            findings.add("audit-loadgen-changed", run.path, what)


def check_across(evidence: list[Evidence], findings: Findings) -> None:
    """Compare one submitter's results with each other."""
    _check_copies(evidence, findings)
    by_system: dict[str, list[Run]] = defaultdict(list)
    for found in evidence:
        by_system[found.system].extend(found.runs)
    for runs in by_system.values():
        _check_overlaps(runs, findings)


def _same_run(a: Evidence, b: Evidence) -> bool:
    """The accuracy levels of a benchmark may share a run, and a result with what it was inferred
    from.
    """
    if a.system != b.system or _level_less(a.official) != _level_less(b.official):
        return False
    ran = {item.inferred_from or item.scenario for item in (a, b)}
    return a.scenario == b.scenario or (bool(a.inferred_from or b.inferred_from) and len(ran) == 1)


def _level_less(official: str) -> str:
    return re.sub(r"-9\d(\.\d)?$", "", official)


def _check_copies(evidence: list[Evidence], findings: Findings) -> None:
    tests = {digest: (found, test) for found in evidence for test, digest in found.test_digests}
    digests: dict[str, Evidence] = {}
    spans: dict[Span, Evidence] = {}
    _check_hashes(evidence, findings)
    for found in evidence:
        for other, test in (tests[item] for item in found.accuracy_hashes if item in tests):
            what = f"accuracy.txt's hash is that of the {test} log of {other.path}"
            findings.add("audit-copied-log", f"{found.path}/accuracy/accuracy.txt", what)
        for test, digest in found.test_digests:
            other_one = digests.setdefault(digest, found)
            if other_one is not found and not _same_run(other_one, found):
                what = f"its {test} log is that of {other_one.path}"
                findings.add("audit-copied-log", found.path, what)
        for run in found.runs:
            first = spans.setdefault(run.span, found) if run.span else found
            if first is not found and not _same_run(first, found):
                what = f"its {run.kind} run has the times of one of {first.path}"
                findings.add("audit-copied-log", run.path, what)


def _check_hashes(evidence: list[Evidence], findings: Findings) -> None:
    """An accuracy.txt with several hashes is asked last: the others say whose they are.

    LoadGen logs an answer when it is complete (logging.cc, LogAccuracy), so batched generation
    gives no two logs alike; queries that are answered one by one may.
    """
    owners: dict[str, Evidence] = {}
    for found in sorted(evidence, key=lambda item: len(item.accuracy_hashes)):
        for digest in found.accuracy_hashes:
            owner = owners.setdefault(digest, found)
            if owner is found or _same_run(owner, found):
                continue
            alike = not found.batched and found.packaged == owner.packaged != ""
            if alike:
                what = f"its accuracy log is that of {owner.path}, or all answers are equal"
            elif len(found.accuracy_hashes) > 1:
                what = f"accuracy.txt has the hash of the accuracy log of {owner.path} too"
            else:
                what = f"its accuracy log is that of {owner.path}"
            softer = Severity.WARNING if alike else None
            findings.add("audit-copied-log", found.path, what, severity=softer)


def _check_overlaps(runs: list[Run], findings: Findings) -> None:
    """A system does one thing at a time; a run packaged twice counts once."""
    timed = {run.span: run for run in runs if run.span}
    ordered = sorted(timed.items(), key=lambda item: item[0])
    for (span, run), (next_span, next_run) in pairwise(ordered):
        if next_span[0] < span[1]:
            what = f"it began at {next_span[0]:%F %T}, before {run.path} ended at {span[1]:%F %T}"
            findings.add("audit-overlap", next_run.path, what)


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.removesuffix("Z"))  # Python 3.10 knows no Z
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
