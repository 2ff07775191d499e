"""Compares runs with each other: errors that no single file shows."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise

from steps.submit.validate.detail import Detail
from steps.submit.validate.findings import Findings

SLOWEST, FASTEST = 0.5, 1.25
"""Accuracy-run speed over performance-run speed. Between 0.71 and 1.01 in AMD's v5.1 results: the
accuracy run is short, so its start and end weigh more; Server is paced in both."""

CLOCKS_AGREE = timedelta(minutes=5)
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
    """One result's values for comparison with others; digests are sha256, "" if absent."""

    path: str
    system: str
    official: str
    scenario: str
    runs: tuple[Run, ...]
    accuracy_hash: str
    test_digests: tuple[tuple[str, str], ...]


def run_of(kind: str, path: str, detail: Detail) -> Run:
    """The values of a detail log that are compared."""
    status = detail.text("loadgen_git_status_message").strip()
    return Run(kind, path, detail.text("loadgen_version"), bool(status), detail.span())


def check_times(path: str, detail: Detail, findings: Findings) -> None:
    """Within one log: built, started, issued, answered in this order."""
    span = detail.span()
    if span is None:
        return
    begin, end = span
    line = detail.line("power_begin")
    if end < begin:
        findings.add("audit-time", path, "the run ends before it begins", line=line)
    started = _time(detail.text("test_datetime"))
    if started and abs(begin - started) > CLOCKS_AGREE:
        what = f"the test began at {started:%F %T}, its queries at {begin:%F %T}"
        findings.add("audit-time", path, what, line=line)
    built = _time(detail.text("loadgen_build_date_utc"))
    if built and built > end:
        what = f"LoadGen was built at {built:%F %T}, after the run at {begin:%F %T}"
        findings.add("audit-time", path, what, line=detail.line("loadgen_build_date_utc"))


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
    """The two accuracy levels of a benchmark may share a run."""
    levels = {item.official.removesuffix("-99.9").removesuffix("-99") for item in (a, b)}
    return (a.system, a.scenario) == (b.system, b.scenario) and len(levels) == 1


def _check_copies(evidence: list[Evidence], findings: Findings) -> None:
    tests = {digest: (found, test) for found in evidence for test, digest in found.test_digests}
    hashes: dict[str, Evidence] = {}
    digests: dict[str, Evidence] = {}
    spans: dict[Span, Evidence] = {}
    for found in evidence:
        if found.accuracy_hash in tests:
            other, test = tests[found.accuracy_hash]
            what = f"accuracy.txt's hash is that of the {test} log of {other.path}"
            findings.add("audit-copied-log", f"{found.path}/accuracy/accuracy.txt", what)
        links: list[tuple[str, dict[str, Evidence], str]] = [
            (found.accuracy_hash, hashes, "accuracy log"),
            *((digest, digests, f"{test} log") for test, digest in found.test_digests),
        ]
        for digest, seen, kind in links:
            other_one = seen.setdefault(digest, found) if digest else found
            if other_one is not found and not _same_run(other_one, found):
                what = f"its {kind} is that of {other_one.path}"
                findings.add("audit-copied-log", found.path, what)
        for run in found.runs:
            first = spans.setdefault(run.span, found) if run.span else found
            if first is not found and not _same_run(first, found):
                what = f"its {run.kind} run has the times of one of {first.path}"
                findings.add("audit-copied-log", run.path, what)


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
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
