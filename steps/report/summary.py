"""What the report says, as typed values: read from manifests once, rendered three ways."""

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from steps.base.record import Manifest, Record, sha256_file
from steps.base.strict import Strict
from steps.config.axes import AXES
from steps.config.checks import NO_GATE
from steps.config.submission import Cell, ReportConfig
from steps.mlperf.loadgen import DETAIL, SAMPLES_FILE, SUMMARY, USER_CONF
from steps.mlperf.published import table
from steps.submit.confidential import Redaction

EVIDENCE: Mapping[str, tuple[str, str]] = {
    "performance log": ("performance_run", SUMMARY),
    "detail log": ("performance_run", DETAIL),
    "samples": ("performance_run", SAMPLES_FILE),
    USER_CONF: ("performance_run", USER_CONF),
    "configuration": ("performance_run", "manifest.json"),
    "accuracy": ("accuracy_check", "accuracy.txt"),
    "gates": ("accuracy_check", "accuracy.json"),
}
"""What a cell's numbers rest on: the step that leaves it, and the file."""

COMPLIANCE = ("verify_accuracy.txt", "verify_performance.txt")
"""Where a test's verdict stands: in the first of these that its directory has."""


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
    run, with dotted keys, and the digests of what it was given. Durations are in s.
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
    """Summaries made before these were measured lack them."""


class Summary(Strict):
    """An experiment's own results, without what they are compared with."""

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


def summarize(config: ReportConfig, inputs: Mapping[str, Path], folder: Path) -> Summary:
    """Read every input once; `folder` is where the report goes, evidence is relative to it.

    Raises UserError naming an input that is missing or damaged.
    """
    package = Manifest.read(inputs["package"])
    cells = tuple(_cell(cell, inputs, folder) for cell in config.cells)
    departures: dict[str, list[str]] = {}
    for cell in config.cells:
        for departure in cell.departures:
            departures.setdefault(departure, []).append(cell.key)
    systems = {
        role.removeprefix("describe/"): _described(path)
        for role, path in inputs.items()
        if role.startswith("describe/")
    }
    return Summary(
        experiment=config.experiment,
        round=config.round,
        divisions=tuple(package.result["divisions"]),
        submitter=package.result["submitter"],
        may_be_submitted=bool(package.result["may_be_submitted"]),
        departures={what: tuple(keys) for what, keys in departures.items()},
        redactions=tuple(Redaction(**found) for found in package.result["redactions"]),
        systems=systems,
        cells=cells,
        # "environment" is what the report itself runs in, and is there under its own name too.
        provenance=tuple(_trace(r, p, folder) for r, p in inputs.items() if r != "environment"),
    )


def _cell(cell: Cell, inputs: Mapping[str, Path], folder: Path) -> CellResult:
    run = Manifest.read(inputs[f"{cell.key}/performance_run"])
    performance = Manifest.read(inputs[f"{cell.key}/performance_check"]).result
    checked = Manifest.read(inputs[f"{cell.key}/accuracy_check"])
    accuracy = checked.result
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
            required=name == accuracy["required"],
            passed=gate["passed"],
            lowest_ratio=min(map(_over_bound, gate["metrics"].values())),
        )
        for name, gate in sorted(accuracy["gates"].items())
    )
    # Where no gate is required, the first stands for all: they have one reference.
    named = accuracy["required"] if accuracy["required"] != NO_GATE else min(accuracy["gates"])
    engine = run.result["engine"]
    loadgen = run.config["loadgen"]
    minimum_ms = loadgen["min_duration_ms"] or run.config["rules"]["min_duration_ms"]
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
        value=performance["value"],
        unit=performance["unit"],
        samples_per_second=performance["samples_per_second"],
        target_qps=performance["target_qps"],
        ttft=_latency(performance, "ttft_ms"),
        tpot=_latency(performance, "tpot_ms"),
        scores=accuracy["scores"],
        reference_ratios=_reference_ratios(
            accuracy["gates"][named]["metrics"],
            checked.config["gates"][named],
            run,
            package.official,
        ),
        gates=gates,
        compliance={test: passed for test, (passed, _) in compliance.items()},
        engine=f"{engine['name']} {engine['version']} ({engine['device']})",
        degraded=tuple(run.result.get("degraded", ())),
        exposed=tuple(run.result.get("exposed", ())),
        loadgen=performance["loadgen_version"],
        min_duration_s=minimum_ms / 1000,
        duration_s=run.result["duration_s"],
        evidence={name: os.path.relpath(path, folder) for name, path in evidence.items()},
        configuration={**flat(run.config), **{f"input.{k}": v for k, v in run.inputs.items()}},
    )


def _compliance(cell: Cell, inputs: Mapping[str, Path]) -> dict[str, tuple[bool, Path]]:
    """By test: whether it passed, and the file that says so. A cell may have none, or several."""
    found = {}
    for role, path in inputs.items():
        if role.startswith(f"{cell.key}/") and role.endswith("/compliance_check"):
            checked = Manifest.read(path)
            name = next(name for name in COMPLIANCE if name in checked.files)
            passed = bool(checked.result["passed"])
            found[str(checked.result["test"])] = (passed, path.with_name(name))
    return found


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys; every value as it would be in JSON."""
    if not isinstance(value, Mapping):
        return {prefix: value if isinstance(value, str) else json.dumps(value)}
    found: dict[str, str] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def _over_bound(metric: Mapping[str, float]) -> float:
    ratios = [metric["score"] / metric["minimum"]] if metric.get("minimum") else []
    if "maximum" in metric:
        ratios.append(metric["maximum"] / metric["score"] if metric["score"] > 0 else 1.0)
    return min(ratios)


def _reference_ratios(
    metrics: Mapping[str, Any], gate: Mapping[str, Any], run: Manifest, official: str
) -> dict[str, float]:
    """Scores over the reference model's, as far as it is known.

    A gate that names its reference says so itself; a round's bounds don't, published tables do.
    """
    if "reference" in gate:
        return {name: metrics[name]["ratio"] for name in gate["reference"]}
    known = table.reference_scores(str(run.config["rules"]["round"]), official)
    return {
        name: entry["score"] / known[name] for name, entry in metrics.items() if known.get(name)
    }


def _latency(performance: Mapping[str, Any], name: str) -> Latency | None:
    if performance[name] is None:
        return None
    limit = performance["limits"][name]
    return Latency(
        p99_ms=float(performance[name]["p99"]), limit_ms=None if limit is None else float(limit)
    )


def _described(path: Path) -> dict[str, str]:
    fields = json.loads(Manifest.read(path).file("system.json").read_text(encoding="utf-8"))
    return {str(name): str(value) for name, value in fields.items()}


def _trace(role: str, path: Path, folder: Path) -> Trace:
    manifest, record = Manifest.read(path), Record.read(path)
    return Trace(
        step=manifest.step,
        key=role.removesuffix(f"/{manifest.step}").removeprefix(f"{manifest.step}/"),
        manifest=os.path.relpath(path, folder),
        manifest_sha256=sha256_file(path),
        code_sha256=record.code,
        started=record.started,
        finished=record.finished,
        inputs=manifest.inputs,
        image=manifest.result.get("image") if manifest.step == "container" else None,
    )
