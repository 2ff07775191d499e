"""Checks one result, all its files: the task of a worker process."""

from dataclasses import dataclass

from steps.mlperf.detail import Detail, examined
from steps.mlperf.loadgen import DETAIL
from steps.mlperf.rounds import load
from steps.submit.validate.accuracy import check_accuracy
from steps.submit.validate.audit import (
    Evidence,
    Run,
    check_loadgen,
    check_speed,
    check_times,
    run_of,
)
from steps.submit.validate.compliance import check_compliance
from steps.submit.validate.findings import Finding, Findings, printable
from steps.submit.validate.measurements import check_measurement
from steps.submit.validate.performance import Judge, check_performance
from steps.submit.validate.tree import Place, Tree
from steps.submit.validate.user_conf import check_user_conf

UNITS = {
    "Offline": "Samples/s",
    "Server": "Queries/s",
    "Interactive": "Queries/s",
    "SingleStream": "Latency (ms)",
    "MultiStream": "Latency (ms)",
}


@dataclass(frozen=True)
class Row:
    """One line of the results table, as the official checker's CSV and the publication have it.

    `directory` is the scenario as its directory spells it; `valid`: no error was found in this
    result's own files.
    """

    division: str
    submitter: str
    system: str
    model: str
    benchmark: str
    scenario: str
    directory: str
    result: float | None
    units: str
    accuracy: str
    valid: bool

    @property
    def path(self) -> str:
        """The result's directory, relative to the tree."""
        return (
            f"{self.division}/{self.submitter}/results/{self.system}/{self.model}/{self.directory}"
        )


@dataclass(frozen=True)
class Outcome:
    """The content of a result's files."""

    row: Row
    findings: tuple[Finding, ...]
    evidence: Evidence


def check_result(
    tree: Tree, round_name: str, place: Place, official: str, *, edge: bool = False
) -> Outcome:
    """Reads every file of the result once; `official` is the benchmark's official name, `edge` says
    that the system is one of the edge suite.
    """
    rules = load(round_name)
    findings = Findings()
    judge = Judge(tree, place, rules, rules.benchmarks[official], findings, edge)
    check_measurement(tree, place, rules, findings)
    runs: list[Run] = []
    result, cell, scored, digests = None, "", None, {}
    endpoint = place.layout.endpoint
    if endpoint is not None and tree.is_file(f"{place.results}/{endpoint}"):
        findings.add("endpoint-not-checked", f"{place.results}/{endpoint}", "no LoadGen logs")
    else:
        performed = check_performance(judge)
        judge, result = performed.judge, performed.result
        rate = None
        if performed.detail is not None:
            folder = f"{place.results}/performance/run_1"
            _take(runs, "performance", folder, performed.detail, findings)
            check_user_conf(judge, official, performed.detail)
            rate = _rate(performed.detail)
        scored = check_accuracy(judge)
        if scored is not None:
            cell = scored.text
            _take(runs, "accuracy", f"{place.results}/accuracy", scored.detail, findings)
            if judge.benchmark.one_dataset(judge.scenario):
                samples = _answered(judge, scored.detail)
                check_speed(f"{place.results}/accuracy", samples, scored.detail, rate, findings)
        if place.closed:
            digests = check_compliance(judge, official, rate)
            _take_tests(judge, runs)
    check_loadgen(runs, place.results, findings)
    row = Row(
        place.division,
        printable(place.submitter),
        printable(place.system),
        printable(place.model),
        official,
        judge.scenario,
        place.scenario,
        result,
        judge.benchmark.units.get(judge.scenario, UNITS[judge.scenario]),
        cell,
        findings.errors() == 0,
    )
    evidence = Evidence(
        place.results,
        place.system,
        official,
        judge.scenario,
        judge.inferred_from,
        tuple(runs),
        scored.hashes if scored else (),
        scored.packaged if scored else "",
        judge.benchmark.token_latencies,
        tuple(digests.items()),
    )
    return Outcome(row, tuple(findings), evidence)


def _answered(judge: Judge, accuracy: Detail) -> float:
    """How many samples the accuracy run answered: a short tree's has fewer than the rules want."""
    wanted = judge.benchmark.accuracy_samples(judge.scenario)
    reported = accuracy.number("qsl_reported_total_count")
    return wanted if reported is None else min(reported, wanted)


def _rate(detail: Detail) -> float | None:
    """Samples per second of a performance run."""
    for key in ("result_samples_per_second", "result_completed_samples_per_sec"):
        if (value := detail.number(key)) is not None:
            return value
    return None


def _take(runs: list[Run], kind: str, folder: str, detail: Detail, findings: Findings) -> None:
    path = f"{folder}/{DETAIL}"
    check_times(path, detail, findings)
    runs.append(run_of(kind, path, detail))


def _take_tests(judge: Judge, runs: list[Run]) -> None:
    for test in ("TEST01", "TEST04"):
        path = f"{judge.place.compliance}/{test}/performance/run_1/{DETAIL}"
        if test in judge.benchmark.compliance_tests and judge.tree.is_file(path):
            runs.append(run_of(test, path, examined(judge.tree.at(path))))
