"""Checks a whole tree: divisions, submitters, systems, models, and their results in parallel."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from steps.base.errors import UserError
from steps.base.untrusted import Damaged, object_of, shown
from steps.mlperf.rounds import DIVISIONS, SCENARIOS, Layout, Round, load
from steps.submit.validate.audit import Evidence, check_across
from steps.submit.validate.findings import Finding, Findings, Severity, printable
from steps.submit.validate.hygiene import check_names, check_root
from steps.submit.validate.result import Outcome, Row, check_result
from steps.submit.validate.system import check_system
from steps.submit.validate.tree import Place, Tree, home_layout

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

MODEL_MAPPING = "model_mapping.json"
CALIBRATION = ("calibration.md", "documentation/calibration.md")
CALIBRATED = "calib"
"""What other documents on calibration have in their names, if there are several."""

BANDWIDTH = "bandwidth"
SERIAL = 32
"""Results of a tree that one process checks before others start: few trees have more."""

WINDOW = 64
"""Results under way per process: they bound the memory for a large tree."""


@dataclass
class Report:
    """What `validate` found. `rows` holds one for every result that could be looked at; `layout` is
    what its submitters have.
    """

    root: str
    round: str
    layout: str
    findings: list[Finding] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for finding in self.findings)

    def valid(self) -> bool:
        return self.count(Severity.ERROR) == 0


@dataclass(frozen=True)
class _Task:
    place: Place
    official: str
    edge: bool


def validate(
    root: Path,
    round_name: str,
    *,
    processes: int | None = None,
    known: Mapping[str, Outcome] = MappingProxyType({}),
    keep: Callable[[Outcome], None] = lambda outcome: None,
) -> Report:
    """Check the tree at `root`; never writes into it. Raises UserError if it can't be entered.

    `known`: earlier outcomes of results that needn't be checked again, by their directory. `keep`
    gets every outcome.
    """
    rules = load(round_name)
    if not root.is_dir():
        raise UserError(f"{root} isn't a directory; name the one that holds closed/ or open/")
    if not os.access(root, os.R_OK | os.X_OK):
        raise UserError(f"{root} can't be read (permission denied); ask its owner for access")
    tree = Tree(root)
    homes = [f"{d}/{s}" for d in DIVISIONS for s in tree.directories(d)]
    layouts = {home: home_layout(tree, home, rules.layout) or rules.layout for home in homes}
    shown = " and ".join(sorted({layout.name for layout in layouts.values()}))
    shown = shown or rules.layout.name
    report = Report(printable(str(root)), round_name, shown)
    findings = Findings()
    check_root(tree, findings)
    for home, layout in layouts.items():
        if layout != rules.layout:
            what = f"the tree has the layout of {layout.name}, not {rules.layout.name}"
            findings.add("tree-layout", home, what)
    report.findings.extend(findings)
    with _Workers(processes or len(os.sched_getaffinity(0))) as workers:
        for home, layout in layouts.items():
            _check_submitter(tree, home, layout, rules, report, workers, known, keep)
    if not report.rows:
        findings = Findings()
        findings.add("tree-empty", "", "no result was found")
        report.findings.extend(findings)
    return report


def _check_submitter(
    tree: Tree,
    home: str,
    layout: Layout,
    rules: Round,
    report: Report,
    workers: "_Workers",
    known: Mapping[str, Outcome],
    keep: Callable[[Outcome], None],
) -> None:
    findings = Findings()
    check_names(tree, home, findings)
    if not tree.is_directory(f"{home}/results"):
        findings.add("submitter-without-results", home, "no results/")
        report.findings.extend(findings)
        return
    _check_documents(tree, home, layout, rules, findings)
    mapping = _model_mapping(tree, home, findings)
    tasks: list[_Task] = []
    for system in tree.directories(f"{home}/results"):
        described = check_system(tree, home, system, rules, findings)
        if not tree.directories(f"{home}/results/{system}"):
            findings.add("without-results", f"{home}/results/{system}", "no model below it")
        kind = described[1] if described else None
        for model in tree.directories(f"{home}/results/{system}"):
            tasks.extend(_model(tree, home, layout, rules, system, kind, model, mapping, findings))
    report.findings.extend(findings)
    evidence: list[Evidence] = []
    fresh = [task for task in tasks if task.place.results not in known]
    old = (known[task.place.results] for task in tasks if task.place.results in known)
    for outcome in chain(old, workers.outcomes(tree, rules.name, fresh)):
        keep(outcome)
        report.rows.append(outcome.row)
        report.findings.extend(outcome.findings)
        evidence.append(outcome.evidence)
    across = Findings()
    check_across(evidence, across)
    report.findings.extend(across)
    # What is shared by results (the code of a model) is found once for each of them.
    report.findings = list(dict.fromkeys(report.findings))


def _judged(tree: Tree, round_name: str, task: _Task) -> Outcome:
    return check_result(tree, round_name, task.place, task.official, edge=task.edge)


class _Workers:
    """Processes that check results, started once there are enough to be worth it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = 0
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def outcomes(self, tree: Tree, round_name: str, tasks: list[_Task]) -> Iterator[Outcome]:
        """In the order of the tasks. Raises UserError if a process is killed."""
        self._seen += len(tasks)
        if self._count < 2 or self._seen <= SERIAL:
            for task in tasks:
                yield _judged(tree, round_name, task)
            return
        # Imported here: a small tree starts no processes, and starts without what they take.
        from concurrent.futures.process import BrokenProcessPool

        pool = self._started()

        def submit(task: _Task) -> "Future[Outcome]":
            return pool.submit(_judged, tree, round_name, task)

        waiting = iter(tasks)
        pending = deque(map(submit, islice(waiting, WINDOW * self._count)))
        while pending:
            try:
                yield pending.popleft().result()
            except BrokenProcessPool as error:
                raise UserError(
                    "a process of the validator was killed, probably out of memory; "
                    "run it again with --processes 1"
                ) from error
            pending.extend(map(submit, islice(waiting, 1)))

    def _started(self) -> "ProcessPoolExecutor":
        if self._pool is None:
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor

            # Forked: the rules are loaded once. A worker that dies raises, and isn't waited for.
            context = multiprocessing.get_context("fork")
            self._pool = ProcessPoolExecutor(self._count, mp_context=context)
        return self._pool


def _check_documents(
    tree: Tree, home: str, layout: Layout, rules: Round, findings: Findings
) -> None:
    results = set(tree.directories(f"{home}/results"))
    if layout.measurements is not None:
        measured = f"{home}/{layout.measurements}"
        if not tree.is_directory(measured):
            findings.add("measurement-missing", measured, "the directory is missing")
        for name in tree.directories(measured):
            if name not in results:
                findings.add("without-results", f"{measured}/{name}", "no such results")
    for name in tree.files(f"{home}/systems"):
        if name.endswith(".json") and name.removesuffix(".json") not in results:
            findings.add("without-results", f"{home}/systems/{name}", "no such results")
    if not home.startswith("open/"):
        found = [name for name in CALIBRATION if tree.is_file(f"{home}/{name}")]
        if not rules.calibration_required:
            there = tree.files(f"{home}/documentation")
            found += [f"documentation/{name}" for name in there if CALIBRATED in name.lower()]
        if not found:
            softer = None if rules.calibration_required else Severity.WARNING
            what = f"neither {' nor '.join(CALIBRATION)}"
            findings.add("calibration-missing", home, what, severity=softer)
        for name in found:
            folder, _, file = f"{home}/{name}".rpartition("/")
            if tree.files(folder).get(file) == 0:
                findings.add("calibration-empty", f"{home}/{name}", "it is empty")
    documents = [*tree.files(home), *tree.files(f"{home}/documentation")]
    if not any(BANDWIDTH in name.lower() for name in documents):
        findings.add("bandwidth-missing", home, "no file names the bandwidth")


def _model_mapping(tree: Tree, home: str, findings: Findings) -> dict[str, str]:
    """open/<submitter>/model_mapping.json: own names of models to official ones."""
    path = f"{home}/{MODEL_MAPPING}"
    if not home.startswith("open/") or not tree.is_file(path):
        return {}
    try:
        mapping, _ = object_of(tree.at(path))
    except Damaged as damage:
        findings.add("model-mapping-damaged", path, str(damage), line=damage.line)
        return {}
    for name, official in mapping.items():
        if not isinstance(official, str):
            what = f"{name} maps to {shown(official)}, which isn't a name"
            findings.add("model-mapping-damaged", path, what)
    return {name: official for name, official in mapping.items() if isinstance(official, str)}


def _model(
    tree: Tree,
    home: str,
    layout: Layout,
    rules: Round,
    system: str,
    kind: str | None,
    model: str,
    mapping: dict[str, str],
    findings: Findings,
) -> Iterator[_Task]:
    """The results to check; required results that are missing go to `findings`."""
    path = f"{home}/results/{system}/{model}"
    open_division = home.startswith("open/")
    official = rules.official(model) or rules.official(mapping.get(model, ""))
    if official is None and open_division:
        official = rules.inferred(model)
    if official is None:
        official = _guess(rules, model) if open_division else None
        judged = f"; it is judged as {official}" if official else ""
        wanted = "no benchmark, and not in model_mapping.json" if open_division else "no benchmark"
        findings.add("model-unknown", path, f"{model} is {wanted} of {rules.name}{judged}")
        if official is None:
            return
    benchmark = rules.benchmarks[official]
    if kind is not None and kind not in benchmark.required:
        what = f"{official} isn't a benchmark for {kind} systems in {rules.name}"
        findings.add("model-not-for-system", path, what)
    required = benchmark.required.get(kind or "", [])
    optional = benchmark.optional.get(kind or "", [])
    found: dict[str, str] = {}
    division, submitter = home.split("/", 1)
    for name in tree.directories(path):
        place = Place(layout, division, submitter, system, model, name)
        scenario = place.official_scenario
        if scenario not in SCENARIOS:
            findings.add("scenario-unknown", f"{path}/{name}", "no scenario has this name")
            continue
        if scenario in found:
            findings.add("scenario-twice", f"{path}/{name}", f"{found[scenario]} is there too")
        found[scenario] = name
        if kind and place.closed and scenario not in (*required, *optional):
            what = f"{official} has no {scenario} on {kind} systems"
            findings.add("scenario-not-allowed", f"{path}/{name}", what)
        yield _Task(place, official, kind is not None and "edge" in kind)
    _check_required(path, required, optional, set(found), open_division, findings)


def _check_required(
    path: str,
    required: Sequence[str],
    optional: Sequence[str],
    found: set[str],
    open_division: bool,
    findings: Findings,
) -> None:
    if open_division:
        if not found:
            findings.add("without-results", path, "no scenario below it")
        return
    for scenario in required:
        if scenario not in found:
            findings.add("scenario-missing", path, f"{scenario} is required")
    if {"Server", "Interactive"} <= set(optional) and not found & {"Server", "Interactive"}:
        findings.add("scenario-one-of", path, "neither Server nor Interactive is there")


def _guess(rules: Round, model: str) -> str | None:
    """The longest benchmark or alias that the name begins with."""
    names = [name for name in (*rules.benchmarks, *rules.model_aliases) if model.startswith(name)]
    return rules.official(max(names, key=len)) if names else None
