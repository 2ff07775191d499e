"""Performance runs, and compliance tests' runs that are measured in the same way."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from steps.base.untrusted import shown
from steps.mlperf.detail import Detail, examined
from steps.mlperf.loadgen import (
    ANSWERS,
    DETAIL,
    RUN_FILES,
    SUMMARY,
    loadgen_scenario,
)
from steps.mlperf.rounds import Benchmark, Round, round_of_seeds
from steps.mlperf.timed_run import (
    NS_PER_MS,
    TOKEN_KEYS,
    Breach,
    Demands,
    Rule,
    audited,
    breaches,
    seeds,
)
from steps.submit.validate import inferred
from steps.submit.validate.findings import Findings, Severity
from steps.submit.validate.power import METER_LOG, POWER, RANGING, check_power
from steps.submit.validate.summary import check_summary
from steps.submit.validate.tree import TOLERATED_FILES, Place, Tree

EMPTY_ANSWERS_BYTES = 16
"""A performance run logs no answers: its accuracy log holds two brackets."""

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
        if name not in ("run_1", POWER, RANGING):
            findings.add("performance-extra-run", f"{parent}/{name}", "only run_1 counts")
    if not judge.tree.is_directory(folder):
        findings.add("performance-missing", folder, "the directory is missing")
        return Performed(judge, None, None)
    measured = judge.tree.is_directory(f"{parent}/{POWER}")
    there = check_files(judge, folder, "performance-files", ANSWERS, *((METER_LOG,) * measured))
    path = f"{folder}/{DETAIL}"
    detail = examined(judge.tree.at(path)) if there else None
    if measured:
        check_power(judge.tree, parent, folder, detail, findings)
    if detail is None:
        return Performed(judge, None, None)
    ran = inferred.source(judge.scenario, detail, edge=judge.edge)
    judge = replace(judge, inferred_from=ran)
    result = check_measured(judge, detail, folder)
    for one in audited(detail):
        _report(judge, path, one)
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
    for one in breaches(detail, demands(judge)):
        _report(judge, path, one, hidden=detail.values.get("num_errors") == 0)
    _check_network(judge, detail, path)
    _check_measured_duration(judge, detail, path)
    unlimited = judge.scenario == "Interactive" and judge.scenario not in judge.benchmark.limits
    if judge.benchmark.token_latencies and unlimited:
        what = "the benchmark has no Interactive limits in this round"
        findings.add("performance-latency", path, what)
    return _result(judge, detail, path)


CODES: Mapping[Rule, str] = {
    "error": "performance-error",
    "errors": "performance-error",
    "limit": "performance-latency",
    "met": "performance-flag",
    "validity": "performance-invalid",
    "mode": "performance-mode",
    "scenario": "performance-scenario",
    "seed": "performance-seed",
    "equal-issue": "performance-equal-issue",
    "token-latencies": "performance-token-latencies",
    "min-duration": "performance-duration",
    "sample-count": "performance-sample-count",
    "dataset": "performance-dataset",
    "offline-samples": "performance-offline-samples",
    "min-queries": "performance-min-queries",
    "judged-limit": "performance-judged-limits",
    "target-latency": "performance-target-latency",
    "audit": "performance-audit",
}

MAY_LACK = ("errors", "met", "judged-limit", "audit")
"""Rules on keys that a log may lack: the official checker takes them as kept."""


def demands(judge: Judge) -> Demands:
    """What the round demands in the scenario of the result."""
    benchmark, targets = judge.benchmark, judge.benchmark.target_latency_ms
    limits = benchmark.limits.get(judge.scenario, {})
    return Demands(
        scenario=judge.ran,
        seeds=judge.rules.seeds,
        min_duration_ms=judge.rules.min_duration_ms,
        sample_count=benchmark.performance_sample_count,
        dataset=benchmark.performance_sample_count,
        offline_samples=benchmark.offline_min_samples,
        equal_issue=benchmark.equal_issue,
        token_latencies=benchmark.token_latencies,
        limits_ms={name: limits[f"{name}_ms"] for name in TOKEN_KEYS if limits},
        target_latency_ms=targets.get(judge.scenario, targets.get("Server")),
    )


def _report(judge: Judge, path: str, one: Breach, *, hidden: bool = False) -> None:
    """`hidden`: LoadGen's errors aren't in its number of them."""
    if one.found is None and one.rule in MAY_LACK:
        return
    code = "performance-error-hidden" if one.rule == "error" and hidden else CODES[one.rule]
    judge.findings.add(code, path, _words(judge, one), line=one.line)


def _words(judge: Judge, one: Breach) -> str:
    key, value = one.key, one.found
    match one.rule:
        case "error":
            return f"LoadGen's error: {key}: {shown(value)}"
        case "errors":
            return f"num_errors is {value:g}"
        case "limit":
            name = next(name for name, known in TOKEN_KEYS.items() if known == key).upper()
            limit = f"it must be below {one.wanted / NS_PER_MS:g} ms"
            return f"p99 {name} is {_ms(value, '.1f')}, {limit}"
        case "met":
            return f"{key} is false"
        case "mode":
            return f"the mode is {value or 'missing'}"
        case "validity":
            return f"{key} is {value or 'missing'}"
        case "scenario":
            return f"{key} is {value or 'missing'}, {judge.scenario} needs {judge.ran}"
        case "seed":
            return _of_a_seed(judge, one)
        case "equal-issue" | "token-latencies":
            return f"{key} is {'missing' if value is None else str(value).lower()}"
        case "dataset":
            dataset = judge.benchmark.dataset_size
            return f"{key} is {_number(value)}, the benchmark's dataset has {dataset}"
        case "judged-limit":
            name = key.split("_")[2].upper()
            limit = f"{judge.scenario} has {one.wanted / NS_PER_MS:g} ms"
            return f"LoadGen judged {name} by {value / NS_PER_MS:g} ms, {limit}"
        case "target-latency":
            limit = f"at most {one.wanted / NS_PER_MS:g} ms are allowed"
            return f"{key} is {_ms(value, 'g')}, {limit}"
        case "audit":
            what = "true" if value is True else f"{value:g}"
            return f"{key} is {what}, as in a compliance test"
    return f"{key} is {_number(value)}, at least {one.wanted:g} is required"


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:g}"


def _ms(value_ns: float | None, form: str) -> str:
    return "missing" if value_ns is None else f"{value_ns / NS_PER_MS:{form}} ms"


def _check_network(judge: Judge, detail: Detail, path: str) -> None:
    name = detail.text("sut_name")
    if judge.place.division == "network" and "Network SUT" not in name:
        what = f"sut_name is {name!r}, it must contain 'Network SUT'"
        judge.findings.add("performance-network", path, what, line=detail.line("sut_name"))


def check_seeds(judge: Judge, detail: Detail, path: str, code: str) -> None:
    """Check the round's three seeds; the finding names the round of another one."""
    for one in seeds(detail, judge.rules.seeds):
        judge.findings.add(code, path, _of_a_seed(judge, one), line=one.line)


def _of_a_seed(judge: Judge, one: Breach) -> str:
    name = one.key.removeprefix("effective_")
    known = None if one.found is None else round_of_seeds().get((name, int(one.found)))
    owner = f" (the seed of round {known})" if known else ""
    found = "missing" if one.found is None else f"{one.found}{owner}"
    return f"{one.key} is {found}, {judge.rules.name} has {one.wanted}"


def _check_measured_duration(judge: Judge, detail: Detail, path: str) -> None:
    minimum = judge.rules.min_duration_ms
    measured = detail.end_ms
    span = detail.span()
    if span is not None:
        measured = min(measured, (span[1] - span[0]).total_seconds() * 1000)
    if measured < minimum:
        what = f"by its own times the run took {measured / 1000:.1f} s, {minimum / 1000:g} are due"
        judge.findings.add("performance-duration-measured", path, what)


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
