"""What the report says, as typed values: read from manifests once, rendered three ways."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from steps.errors import UserError
from steps.record import RECORD, Manifest, sha256_file
from steps.registry import AXES
from steps.schema import Cell, ReportConfig
from steps.strict import Strict

EVIDENCE: Mapping[str, tuple[str, str]] = {
    "performance log": ("performance_run", "mlperf_log_summary.txt"),
    "detail log": ("performance_run", "mlperf_log_detail.txt"),
    "samples": ("performance_run", "samples.csv"),
    "user.conf": ("performance_run", "user.conf"),
    "configuration": ("performance_run", "manifest.json"),
    "accuracy": ("accuracy_check", "accuracy.txt"),
    "compliance": ("compliance_check", "verify_accuracy.txt"),
}
"""What a cell's numbers rest on: the step that leaves it, and the file."""

COMPLIANCE = ("compliance_run", "compliance_check")


class Latency(Strict):
    """A 99th percentile against its limit, in ms; no limit in Offline."""

    p99_ms: float
    limit_ms: float | None

    @property
    def headroom(self) -> float | None:
        """Share of the limit that is left, 0 to 1; negative beyond it."""
        return None if self.limit_ms is None else 1 - self.p99_ms / self.limit_ms


class GateResult(Strict):
    """One accuracy gate; `lowest_ratio` is the worst metric's score over the reference's."""

    name: str
    required: bool
    passed: bool
    lowest_ratio: float


class Trace(Strict):
    """Where one result comes from. Times are UTC; digests are sha256."""

    step: str
    key: str
    manifest_sha256: str
    code_sha256: str
    started: str
    finished: str
    inputs: dict[str, str]

    @property
    def seconds(self) -> float:
        """Wall-clock time of the step."""
        begun, ended = map(datetime.fromisoformat, (self.started, self.finished))
        return (ended - begun).total_seconds()


class CellResult(Strict):
    """One row of the results table.

    `axes` names the point of the matrix, every axis of it. `evidence` maps what a number rests on
    ("performance log", "configuration", ...) to a path relative to the report's directory.
    `configuration` is that of the performance run, with dotted keys, and the digests of what it
    was given. Durations are in s.
    """

    key: str
    axes: dict[str, str]
    system: str
    benchmark: str
    compression: str
    precision: str
    scenario: str
    emulated: bool
    departures: tuple[str, ...]
    tokens_per_second: float
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

    @property
    def label(self) -> str:
        """The cell's axes in words, without the benchmark."""
        names = [value for axis, value in self.axes.items() if axis != "benchmark"]
        return " ".join([*names, "(emulated)"] if self.emulated else names)


class Summary(Strict):
    """The whole of summary.json."""

    experiment: str
    round: str
    division: str
    submitter: str
    may_be_submitted: bool
    departures: dict[str, tuple[str, ...]]
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
        division=package.result["division"],
        submitter=package.result["submitter"],
        may_be_submitted=bool(package.result["may_be_submitted"]),
        departures={what: tuple(keys) for what, keys in departures.items()},
        systems=systems,
        cells=cells,
        # "environment" is what the report itself runs in, and is there under its own name too.
        provenance=tuple(_trace(r, p) for r, p in inputs.items() if r != "environment"),
    )


def to_json(summary: Summary) -> str:
    """Stable: sorted keys, no time of making."""
    return json.dumps(summary.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"


def to_csv(cells: Sequence[CellResult]) -> str:
    """One row per cell; empty where a scenario has no such number."""
    rows = [_row(cell) for cell in cells]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(cell: CellResult) -> dict[str, Any]:
    row: dict[str, Any] = {**cell.axes, "emulated": cell.emulated}
    row |= {
        "tokens_per_second": cell.tokens_per_second,
        "samples_per_second": cell.samples_per_second,
        "target_qps": cell.target_qps,
    }
    for name, latency in (("ttft", cell.ttft), ("tpot", cell.tpot)):
        row[f"{name}_p99_ms"] = latency.p99_ms if latency else ""
        row[f"{name}_limit_ms"] = latency.limit_ms if latency else ""
    row |= cell.scores
    row |= {f"gate_{gate.name}_passed": gate.passed for gate in cell.gates}
    row |= {f"{test}_passed": passed for test, passed in cell.compliance.items()}
    row["departures"] = len(cell.departures)
    return row


def _cell(cell: Cell, inputs: Mapping[str, Path], folder: Path) -> CellResult:
    run = Manifest.read(inputs[f"{cell.key}/performance_run"])
    performance = Manifest.read(inputs[f"{cell.key}/performance_check"]).result
    accuracy = Manifest.read(inputs[f"{cell.key}/accuracy_check"]).result
    compliance = {
        test: bool(Manifest.read(inputs[cell.role("compliance_check", test)]).result["passed"])
        for test in cell.compliance_tests
    }
    gates = tuple(
        GateResult(
            name=name,
            required=name == accuracy["required"],
            passed=gate["passed"],
            lowest_ratio=min(entry["ratio"] for entry in gate["metrics"].values()),
        )
        for name, gate in sorted(accuracy["gates"].items())
    )
    required = accuracy["gates"][accuracy["required"]]["metrics"]
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
        emulated=cell.emulated,
        departures=cell.departures,
        tokens_per_second=performance["value"],
        samples_per_second=performance["samples_per_second"],
        target_qps=performance["target_qps"],
        ttft=_latency(performance, "ttft_ms"),
        tpot=_latency(performance, "tpot_ms"),
        scores=accuracy["scores"],
        reference_ratios={name: entry["ratio"] for name, entry in required.items()},
        gates=gates,
        compliance=compliance,
        engine=f"{engine['name']} {engine['version']} ({engine['device']})",
        loadgen=performance["loadgen_version"],
        min_duration_s=minimum_ms / 1000,
        duration_s=run.result["duration_s"],
        evidence=_evidence(cell, inputs, folder),
        configuration={**flat(run.config), **{f"input.{k}": v for k, v in run.inputs.items()}},
    )


def _evidence(cell: Cell, inputs: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """Of several compliance tests the first."""
    test = next(iter(cell.compliance_tests), "")
    return {
        name: os.path.relpath(
            inputs[cell.role(step, test if step in COMPLIANCE else "")].with_name(file), folder
        )
        for name, (step, file) in EVIDENCE.items()
        if test or step not in COMPLIANCE
    }


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys; every value as it would be in JSON."""
    if not isinstance(value, Mapping):
        return {prefix: value if isinstance(value, str) else json.dumps(value)}
    found: dict[str, str] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


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


def _trace(role: str, path: Path) -> Trace:
    manifest = Manifest.read(path)
    try:
        record = json.loads(path.with_name(RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path.with_name(RECORD)} is missing or damaged; re-run") from error
    return Trace(
        step=manifest.step,
        key=role.removesuffix(f"/{manifest.step}").removeprefix(f"{manifest.step}/"),
        manifest_sha256=sha256_file(path),
        code_sha256=record["code"],
        started=record["started"],
        finished=record["finished"],
        inputs=manifest.inputs,
    )
