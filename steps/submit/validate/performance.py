"""Performance runs, and compliance tests' runs that are measured in the same way."""

from dataclasses import dataclass, replace

from steps.mlperf.loadgen import (
    ANSWERS,
    DETAIL,
    P99,
    RUN_FILES,
    SUMMARY,
    TPOT_KEY,
    TRACE,
    TTFT_KEY,
    loadgen_scenario,
)
from steps.mlperf.rounds import Benchmark, Round, round_of_seeds
from steps.submit.validate import inferred
from steps.submit.validate.detail import Detail, read_detail
from steps.submit.validate.findings import Findings, Severity
from steps.submit.validate.summary import check_summary
from steps.submit.validate.tree import Place, Tree

TOLERATED_FILES = (TRACE, "results.json")
POWER_LOG = "spl.txt"
"""Samples of the power meter (REQUIRED_PERF_POWER_FILES of the checkers)."""

EMPTY_ANSWERS_BYTES = 16
"""A performance run logs no answers: its accuracy log holds two brackets."""

MET_FLAGS = (
    "result_min_duration_met",
    "result_min_queries_met",
    "result_perf_constraints_met",
    "early_stopping_met",
)
AUDIT_NUMBERS = (
    "effective_accuracy_log_sampling_target",
    "effective_accuracy_log_probability",
    "effective_accuracy_log_rng_seed",
)
AUDIT_FLAGS = ("effective_performance_issue_unique", "effective_performance_issue_same")
LATENCIES = {
    "ttft": TTFT_KEY.format(P99),
    "tpot": TPOT_KEY.format(P99),
}
NS_PER_MS = 1_000_000
MS_PER_S = 1000
SECONDS = "Latency (s)"
"""Unit of benchmarks whose latencies a round gives in seconds."""


@dataclass(frozen=True)
class Judge:
    """What a performance log is held against.

    `edge`: the system is one of the edge suite. `inferred_from`: the scenario that the result's
    runs were made in if that isn't its own, else "".
    """

    tree: Tree
    place: Place
    rules: Round
    benchmark: Benchmark
    findings: Findings
    edge: bool = False
    inferred_from: str = ""

    @property
    def scenario(self) -> str:
        return self.place.official_scenario

    @property
    def ran(self) -> str:
        """LoadGen's own name of the scenario that the runs are made in."""
        return self.inferred_from or loadgen_scenario(self.scenario)


def check_files(
    judge: Judge, folder: str, code: str, *optional: str, wanted: tuple[str, ...] = RUN_FILES
) -> bool:
    """The files of a run and, where the round says so, no other; whether the detail log is there.

    Of compliance tests every checker compares the whole list.
    """
    files = set(judge.tree.files(folder))
    for name in sorted(set(wanted) - files):
        judge.findings.add(code, f"{folder}/{name}", f"{name} is missing")
    exact = judge.rules.exact_files or code == "compliance-files"
    for name in sorted(files - {*wanted, *TOLERATED_FILES, *optional}):
        what = f"{name} does not belong here"
        severity = None if exact else Severity.ADVICE
        judge.findings.add(code, f"{folder}/{name}", what, severity=severity)
    return DETAIL in files


def check_log(detail: Detail, path: str, findings: Findings) -> None:
    """Damage that any log may have."""
    for code, entries in (
        ("log-damaged", detail.damage),
        ("log-value", detail.mistyped),
        ("log-conflict", detail.conflicts),
    ):
        for line, what in entries:
            findings.add(code, path, what, line=line)


@dataclass(frozen=True)
class Performed:
    """A performance run: its log, and the result in the round's metric. `judge` knows from it what
    the result's other runs are held against.
    """

    judge: Judge
    detail: Detail | None
    result: float | None


def check_performance(judge: Judge) -> Performed:
    """Check performance/run_1."""
    parent = f"{judge.place.results}/performance"
    folder = f"{parent}/run_1"
    findings = judge.findings
    for name in judge.tree.directories(parent):
        if name == "power":
            findings.add("power-not-checked", f"{parent}/power", "power was measured")
        elif name not in ("run_1", "ranging"):
            findings.add("performance-extra-run", f"{parent}/{name}", "only run_1 counts")
    if not judge.tree.is_directory(folder):
        findings.add("performance-missing", folder, "the directory is missing")
        return Performed(judge, None, None)
    power = (POWER_LOG,) if judge.tree.is_directory(f"{parent}/power") else ()
    if not check_files(judge, folder, "performance-files", ANSWERS, *power):
        return Performed(judge, None, None)
    path = f"{folder}/{DETAIL}"
    detail = read_detail(judge.tree.at(path))
    ran = inferred.source(judge.scenario, detail, edge=judge.edge)
    judge = replace(judge, inferred_from=ran)
    result = check_measured(judge, detail, folder)
    _check_unaudited(judge, detail, path)
    size = judge.tree.files(folder).get(ANSWERS, 0)
    if size > EMPTY_ANSWERS_BYTES:
        what = f"{size} bytes of answers were logged in the performance run"
        findings.add("performance-answers", f"{folder}/{ANSWERS}", what)
    return Performed(judge, detail, result)


def check_measured(judge: Judge, detail: Detail, folder: str) -> float | None:
    """The checks of every timed run of full length; returns the result, None without one."""
    path = f"{folder}/{DETAIL}"
    findings = judge.findings
    check_log(detail, path, findings)
    check_summary(judge.tree, f"{folder}/{SUMMARY}", detail, findings)
    validity = detail.text("result_validity")
    if validity != "VALID":
        line = detail.line("result_validity")
        findings.add(
            "performance-invalid", path, f"result_validity is {validity or 'missing'}", line=line
        )
    mode = detail.text("effective_test_mode")
    if mode != "PerformanceOnly":
        line = detail.line("effective_test_mode")
        findings.add("performance-mode", path, f"the mode is {mode or 'missing'}", line=line)
    _check_errors(detail, path, findings)
    _check_scenario(judge, detail, path)
    check_seeds(judge, detail, path, "performance-seed")
    _check_counts(judge, detail, path)
    _check_duration(judge, detail, path)
    _check_latencies(judge, detail, path)
    for flag in MET_FLAGS:
        if detail.flag(flag) is False:
            findings.add("performance-flag", path, f"{flag} is false", line=detail.line(flag))
    return _result(judge, detail, path)


def _check_errors(detail: Detail, path: str, findings: Findings) -> None:
    counted = detail.number("num_errors")
    if counted:
        line = detail.line("num_errors")
        findings.add("performance-error", path, f"num_errors is {counted:g}", line=line)
    code = "performance-error-hidden" if counted == 0 else "performance-error"
    for line, what in detail.errors:
        findings.add(code, path, f"LoadGen's error: {what}", line=line)


def _check_scenario(judge: Judge, detail: Detail, path: str) -> None:
    found = detail.text("effective_scenario")
    if found != judge.ran:
        what = f"effective_scenario is {found or 'missing'}, {judge.scenario} needs {judge.ran}"
        line = detail.line("effective_scenario")
        judge.findings.add("performance-scenario", path, what, line=line)
    name = detail.text("sut_name")
    if judge.place.division == "network" and "Network SUT" not in name:
        what = f"sut_name is {name!r}, it must contain 'Network SUT'"
        judge.findings.add("performance-network", path, what, line=detail.line("sut_name"))


def check_seeds(judge: Judge, detail: Detail, path: str, code: str) -> None:
    """Check the round's three seeds; the finding names the round of another one."""
    for name, seed in judge.rules.seeds.items():
        key = f"effective_{name}"
        found = detail.number(key)
        if found == seed:
            continue
        known = None if found is None else round_of_seeds().get((name, int(found)))
        owner = f" (the seed of round {known})" if known else ""
        shown = "missing" if found is None else f"{found}{owner}"
        what = f"{key} is {shown}, {judge.rules.name} has {seed}"
        judge.findings.add(code, path, what, line=detail.line(key))


def _at_least(
    judge: Judge, detail: Detail, path: str, key: str, minimum: float | None, code: str
) -> None:
    found = detail.number(key)
    if minimum is not None and (found is None or found < minimum):
        shown = "missing" if found is None else f"{found:g}"
        what = f"{key} is {shown}, at least {minimum:g} is required"
        judge.findings.add(code, path, what, line=detail.line(key))


def _check_counts(judge: Judge, detail: Detail, path: str) -> None:
    benchmark = judge.benchmark
    wanted = benchmark.performance_sample_count
    _at_least(
        judge,
        detail,
        path,
        "effective_performance_sample_count",
        wanted,
        "performance-sample-count",
    )
    if judge.ran == "Offline":
        minimum = benchmark.offline_min_samples
        _at_least(
            judge,
            detail,
            path,
            "effective_samples_per_query",
            minimum,
            "performance-offline-samples",
        )
        _at_least(judge, detail, path, "effective_min_query_count", 1, "performance-min-queries")
    key = "qsl_reported_total_count"
    total = detail.number(key)
    if total is None or total < wanted:
        shown = "missing" if total is None else f"{total:g}"
        what = f"{key} is {shown}, the benchmark's dataset has {benchmark.dataset_size}"
        judge.findings.add("performance-dataset", path, what, line=detail.line(key))
    key = "effective_sample_concatenate_permutation"
    if benchmark.equal_issue and detail.flag(key) is not True:
        what = f"{key} is {_flag(detail, key)}"
        judge.findings.add("performance-equal-issue", path, what, line=detail.line(key))
    key = "requested_use_token_latencies"
    if benchmark.token_latencies and detail.flag(key) is not True:
        what = f"{key} is {_flag(detail, key)}"
        judge.findings.add("performance-token-latencies", path, what, line=detail.line(key))


def _flag(detail: Detail, key: str) -> str:
    value = detail.flag(key)
    return "missing" if value is None else str(value).lower()


def _check_duration(judge: Judge, detail: Detail, path: str) -> None:
    minimum = judge.rules.min_duration_ms
    _at_least(judge, detail, path, "effective_min_duration_ms", minimum, "performance-duration")
    measured = detail.end_ms
    span = detail.span()
    if span is not None:
        measured = min(measured, (span[1] - span[0]).total_seconds() * 1000)
    if measured < minimum:
        what = f"by its own times the run took {measured / 1000:.1f} s, {minimum / 1000:g} are due"
        judge.findings.add("performance-duration-measured", path, what)


def _check_latencies(judge: Judge, detail: Detail, path: str) -> None:
    limits = judge.benchmark.limits.get(judge.scenario)
    if judge.benchmark.token_latencies and judge.scenario == "Interactive" and limits is None:
        what = "the benchmark has no Interactive limits in this round"
        judge.findings.add("performance-latency", path, what)
    for name, key in LATENCIES.items():
        if limits is None:
            break
        limit_ms = limits[f"{name}_ms"]
        found = detail.number(key)
        if found is None or not found < limit_ms * NS_PER_MS:
            shown = "missing" if found is None else f"{found / NS_PER_MS:.1f} ms"
            what = f"p99 {name.upper()} is {shown}, it must be below {limit_ms} ms"
            judge.findings.add("performance-latency", path, what, line=detail.line(key))
        key = f"requested_server_{name}_latency"
        judged = detail.number(key)
        if judged is not None and judged > limit_ms * NS_PER_MS:
            what = (
                f"LoadGen judged {name.upper()} by {judged / NS_PER_MS:g} ms, "
                f"{judge.scenario} has {limit_ms} ms"
            )
            judge.findings.add("performance-judged-limits", path, what, line=detail.line(key))
    if detail.text("effective_scenario") != "Server":
        return
    targets = judge.benchmark.target_latency_ms
    target = targets.get(judge.scenario, targets.get("Server"))
    key = "effective_target_latency_ns"
    found = detail.number(key)
    if target is not None and (found is None or found > target * NS_PER_MS):
        shown = "missing" if found is None else f"{found / NS_PER_MS:g} ms"
        what = f"{key} is {shown}, at most {target} ms are allowed"
        judge.findings.add("performance-target-latency", path, what, line=detail.line(key))


def _check_unaudited(judge: Judge, detail: Detail, path: str) -> None:
    """A performance run with a compliance test's settings measures something else."""
    for key in AUDIT_NUMBERS:
        if found := detail.number(key):
            what = f"{key} is {found:g}, as in a compliance test"
            judge.findings.add("performance-audit", path, what, line=detail.line(key))
    for key in AUDIT_FLAGS:
        if detail.flag(key):
            what = f"{key} is true, as in a compliance test"
            judge.findings.add("performance-audit", path, what, line=detail.line(key))


def _result(judge: Judge, detail: Detail, path: str) -> float | None:
    """Edge latencies in ms or the unit of the benchmark, everything else as logged."""
    default = judge.rules.result_keys[judge.ran]
    key = judge.benchmark.result_keys.get(judge.ran, default)
    found = detail.number(key)
    values = {needed: detail.number(needed) for needed in (default, key)}
    if judge.inferred_from:
        key, found = inferred.value(judge.scenario, judge.ran, detail)
        values[key] = found
    for needed, value in values.items():
        if value is None or value <= 0:
            shown = "missing" if value is None else f"{value:g}"
            line = detail.line(needed)
            judge.findings.add("performance-result", path, f"{needed} is {shown}", line=line)
    if judge.inferred_from or judge.scenario not in ("SingleStream", "MultiStream"):
        return found
    if found is None:
        return None
    in_seconds = judge.benchmark.units.get(judge.scenario) == SECONDS
    return found / NS_PER_MS / MS_PER_S if in_seconds else found / NS_PER_MS
