"""The report's content as typed values: read from manifests once, rendered three ways."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from steps.base.errors import UserError
from steps.base.record import Manifest, Record, sha256_file
from steps.base.strict import Strict
from steps.config import verdicts
from steps.config.axes import AXES
from steps.config.environments import ImageResult
from steps.config.resolved import Resolved
from steps.config.results import result_of
from steps.config.run_results import RunResult
from steps.config.scale import StandIn
from steps.config.submission import Cell, Redaction, SubmissionResult
from steps.config.verdicts import (
    AccuracyVerdict,
    ComplianceVerdict,
    Metric,
    Percentiles,
    PerformanceVerdict,
)
from steps.config.window import Window
from steps.mlperf.loadgen import DETAIL, SAMPLES_FILE, SUMMARY, USER_CONF
from steps.mlperf.published import table
from steps.plan.plan import Plan
from steps.plan.registry import STEPS
from steps.plan.states import CellState, States, described

EVIDENCE: Mapping[str, tuple[str, str]] = {
    "performance log": ("performance_run", SUMMARY),
    "detail log": ("performance_run", DETAIL),
    "samples": ("performance_run", SAMPLES_FILE),
    USER_CONF: ("performance_run", USER_CONF),
    "configuration": ("performance_run", "manifest.json"),
    "accuracy": ("accuracy_check", "accuracy.txt"),
    "gates": ("accuracy_check", "accuracy.json"),
}
"""The evidence of a cell's numbers: the step that leaves it, and the file."""

COMPLIANCE = ("verify_accuracy.txt", "verify_performance.txt")
"""The file with a test's verdict: the first of these in its directory."""


class Latency(Strict):
    """A 99th percentile against its limit, in ms; no limit in Offline."""

    p99_ms: float
    limit_ms: float | None

    @property
    def headroom(self) -> float | None:
        """Share of the limit that is left, 0 to 1; negative beyond it."""
        return None if self.limit_ms is None else 1 - self.p99_ms / self.limit_ms


class GateResult(Strict):
    """One accuracy gate; `lowest_ratio` is of the worst metric to its bound: 1 or more passes."""

    name: str
    required: bool
    passed: bool
    lowest_ratio: float


class Trace(Strict):
    """Where one result comes from. Times are UTC; digests are sha256.

    `manifest` is its path relative to the report's directory. `image`: of a container, its id.
    `version`: of Reprise, with its commit; "" if it wasn't recorded.
    `notes`: what a reader of results has to know of that image.
    """

    step: str
    key: str
    manifest: str
    manifest_sha256: str
    code_sha256: str
    started: str
    finished: str
    inputs: dict[str, str]
    image: str | None
    version: str = ""
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Wall-clock time of the step."""
        begun, ended = map(datetime.fromisoformat, (self.started, self.finished))
        return (ended - begun).total_seconds()


class CellResult(Strict):
    """One row of the results table.

    `axes` names the point of the matrix, every axis of it. `official` is the round's benchmark that
    it is submitted as (the stricter gate of two), `model` the submission's own name of it,
    `weight_data_types` what the submission calls the precision. `value` is the round's metric, in
    `unit`. `evidence` maps what a number rests on ("performance log", "configuration", a compliance
    test) to a path relative to the report's directory. `configuration` is that of the performance
    run, with dotted keys, and the digests of what it was given. `resolved`: what its engine made of
    its settings. `dropped_variables`: how many of the shell's it didn't see. Durations are in s.
    """

    key: str
    axes: dict[str, str]
    system: str
    benchmark: str
    compression: str
    precision: str
    scenario: str
    division: str
    official: str
    model: str
    weight_data_types: str
    emulated: bool
    departures: tuple[str, ...]
    value: float
    unit: str
    samples_per_second: float
    target_qps: float
    ttft: Latency | None
    tpot: Latency | None
    scores: dict[str, float]
    reference_ratios: dict[str, float]
    gates: tuple[GateResult, ...]
    compliance: dict[str, bool]
    engine: str
    loadgen: str
    min_duration_s: float
    duration_s: float
    evidence: dict[str, str]
    configuration: dict[str, str]
    degraded: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    tries: int = 1
    window: Window | None = None
    resolved: Resolved | None = None
    dropped_variables: int = 0
    """Summaries made before these were measured lack them."""


class Replaced(StandIn):
    """What stands in for what in a dress rehearsal, and in which cells, by their keys."""

    cells: tuple[str, ...]


class Summary(Strict):
    """An experiment's own results, without what they are compared with.

    `states` has every cell of the plan, `cells` those that are valid. `replaced`: empty if this is
    no dress rehearsal. `expected_s`: machine-seconds of the runs of a rehearsed cell on its system,
    by its key, where they are known.
    """

    experiment: str
    round: str
    divisions: tuple[str, ...]
    submitter: str
    may_be_submitted: bool
    departures: dict[str, tuple[str, ...]]
    redactions: tuple[Redaction, ...]
    systems: dict[str, dict[str, str]]
    cells: tuple[CellResult, ...]
    provenance: tuple[Trace, ...]
    overrides: tuple[str, ...] = ()
    replaced: tuple[Replaced, ...] = ()
    expected_s: dict[str, float] = Field(default_factory=dict)
    states: tuple[CellState, ...] = ()
    """Summaries of whole experiments only, as they were made before, lack these."""


def roles(plan: Plan, root: Path) -> dict[str, Path]:
    """Manifests of a plan that are there, by role: as the submission names them, and artifacts."""
    found: dict[str, str] = {}
    for job in plan.jobs:
        if STEPS[job.step].stage == "artifacts":
            found[f"{job.step}/{job.key}"] = job.output
        elif job.step in ("submission", "provenance"):
            found |= {r: p for r, p in job.inputs.items() if not r.startswith("lock/")}
            found["package" if job.step == "submission" else job.step] = job.output
    # What the packaging ran in is there under its own name too.
    found.pop("environment", None)
    return {role: root / path for role, path in found.items() if (root / path).is_file()}


def summarize(plan: Plan, root: Path, folder: Path) -> Summary:
    """A plan's existing results; evidence is relative to `folder`, the page's directory."""
    config, states, inputs = described(plan), States(plan, root), roles(plan, root)
    cells = states.cells()
    valid = {cell.key for cell in cells if cell.state == "valid"}
    departures: dict[str, list[str]] = {}
    for cell in config.cells:
        for departure in cell.departures:
            departures.setdefault(departure, []).append(cell.key)
    made = states.current("submission")
    package = None if made is None else result_of(made, SubmissionResult)
    return Summary(
        experiment=config.experiment,
        round=config.round,
        divisions=tuple(sorted({cell.division for cell in config.cells})),
        submitter=config.submitter,
        may_be_submitted=package is not None and package.may_be_submitted,
        departures={what: tuple(keys) for what, keys in departures.items()},
        redactions=() if package is None else package.redactions,
        systems={
            role.removeprefix("describe/"): _described(path)
            for role, path in inputs.items()
            if role.startswith("describe/")
        },
        cells=tuple(_cell(cell, inputs, folder) for cell in config.cells if cell.key in valid),
        provenance=tuple(
            trace for role, path in inputs.items() if (trace := _trace(role, path, folder))
        ),
        overrides=config.overrides,
        replaced=_replaced(config.cells),
        expected_s={c.key: c.expected_s for c in config.cells if c.expected_s is not None},
        states=cells,
    )


def _replaced(cells: Sequence[Cell]) -> tuple[Replaced, ...]:
    """Each once, in the order in which cells have them."""
    found: dict[StandIn, list[str]] = {}
    for cell in cells:
        for one in cell.replaced:
            found.setdefault(one, []).append(cell.key)
    return tuple(Replaced(**one.model_dump(), cells=tuple(keys)) for one, keys in found.items())


def _cell(cell: Cell, inputs: Mapping[str, Path], folder: Path) -> CellResult:
    run = Manifest.read(inputs[f"{cell.key}/performance_run"])
    ran = result_of(run, RunResult)
    performance = verdicts.read(inputs[f"{cell.key}/performance_check"], PerformanceVerdict)
    checked = Manifest.read(inputs[f"{cell.key}/accuracy_check"])
    accuracy = verdicts.of(checked, AccuracyVerdict)
    compliance = _compliance(cell, inputs)
    evidence = {
        name: inputs[f"{cell.key}/{step}"].with_name(file)
        for name, (step, file) in EVIDENCE.items()
    }
    evidence |= {test: path for test, (_, path) in compliance.items()}
    package = next((p for p in cell.packages if p.official == cell.benchmark), cell.packages[-1])
    gates = tuple(
        GateResult(
            name=name,
            required=name == accuracy.required,
            passed=gate.passed,
            lowest_ratio=min(map(_over_bound, gate.metrics.values())),
        )
        for name, gate in sorted(accuracy.gates.items())
    )
    named = accuracy.reference_gate
    loadgen = run.config["loadgen"]
    minimum_ms = loadgen["min_duration_ms"] or run.config["rules"]["min_duration_ms"]
    limits = performance.limits
    return CellResult(
        key=cell.key,
        axes={axis: str(getattr(cell, axis)) for axis in AXES},
        system=cell.system,
        benchmark=cell.benchmark,
        compression=cell.compression,
        precision=cell.precision,
        scenario=cell.scenario,
        division=cell.division,
        official=package.official,
        model=package.name,
        weight_data_types=cell.measurement.weight_data_types,
        emulated=cell.emulated,
        departures=cell.departures,
        value=performance.value,
        unit=performance.unit,
        samples_per_second=performance.samples_per_second,
        target_qps=performance.target_qps,
        ttft=_latency(performance.ttft_ms, limits.ttft_ms),
        tpot=_latency(performance.tpot_ms, limits.tpot_ms),
        scores=accuracy.scores,
        reference_ratios=_reference_ratios(
            accuracy.gates[named].metrics,
            checked.config["gates"][named],
            run,
            package.official,
        ),
        gates=gates,
        compliance={test: passed for test, (passed, _) in compliance.items()},
        engine=ran.engine.words,
        degraded=ran.degraded,
        exposed=ran.exposed,
        tries=ran.tries,
        window=performance.window,
        resolved=None if ran.resolved == Resolved() else ran.resolved,
        dropped_variables=ran.dropped_variables,
        loadgen=performance.loadgen_version,
        min_duration_s=minimum_ms / 1000,
        duration_s=ran.duration_s,
        evidence={name: os.path.relpath(path, folder) for name, path in evidence.items()},
        configuration={**flat(run.config), **{f"input.{k}": v for k, v in run.inputs.items()}},
    )


def _compliance(cell: Cell, inputs: Mapping[str, Path]) -> dict[str, tuple[bool, Path]]:
    """By test: whether it passed, and the file that says so. A cell may have none, or several."""
    found = {}
    for role, path in inputs.items():
        if role.startswith(f"{cell.key}/") and role.endswith("/compliance_check"):
            checked = Manifest.read(path)
            verdict = verdicts.of(checked, ComplianceVerdict)
            name = next((name for name in COMPLIANCE if name in checked.files), path.name)
            found[verdict.test] = (verdict.holds, path.with_name(name))
    return found


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys; every value as it would be in JSON."""
    if not isinstance(value, Mapping):
        return {prefix: value if isinstance(value, str) else json.dumps(value)}
    found: dict[str, str] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def _over_bound(metric: Metric) -> float:
    ratios = [metric.score / metric.minimum] if metric.minimum else []
    if metric.maximum is not None:
        ratios.append(metric.maximum / metric.score if metric.score > 0 else 1.0)
    return min(ratios)


def _reference_ratios(
    metrics: Mapping[str, Metric], gate: Mapping[str, Any], run: Manifest, official: str
) -> dict[str, float]:
    """Scores over the reference model's, as far as it is known.

    A gate that names its reference says so itself; a round's bounds don't, published tables do.
    """
    if "reference" in gate:
        return {name: metrics[name].ratio for name in gate["reference"]}
    known = table.reference_scores(str(run.config["rules"]["round"]), official)
    return {name: metric.score / known[name] for name, metric in metrics.items() if known.get(name)}


def _latency(percentiles: Percentiles | None, limit_ms: float | None) -> Latency | None:
    return None if percentiles is None else Latency(p99_ms=percentiles["p99"], limit_ms=limit_ms)


def _described(path: Path) -> dict[str, str]:
    fields = json.loads(Manifest.read(path).file("system.json").read_text(encoding="utf-8"))
    return {str(name): str(value) for name, value in fields.items()}


def _trace(role: str, path: Path, folder: Path) -> Trace | None:
    """None for a result that can't be traced: its manifest or record is damaged."""
    try:
        manifest, record = Manifest.read(path), Record.read(path)
    except UserError:
        return None  # a page is made of what can be read; verify names the rest
    return Trace(
        step=manifest.step,
        key=role.removesuffix(f"/{manifest.step}").removeprefix(f"{manifest.step}/"),
        manifest=os.path.relpath(path, folder),
        manifest_sha256=sha256_file(path),
        code_sha256=record.code,
        version="" if record.origin.version is None else str(record.origin.version),
        started=record.started,
        finished=record.finished,
        inputs=manifest.inputs,
        image=result_of(manifest, ImageResult).image if manifest.step == "container" else None,
        notes=tuple(manifest.config.get("notes", ())) if manifest.step == "container" else (),
    )
