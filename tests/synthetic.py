"""A finished experiment without its hours: plausible outputs of every job up to the verdicts."""

import json
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps import schema
from steps.plan import Job, Plan
from steps.published.result import Result
from steps.record import Workspace, publish
from steps.report.__main__ import step as report_step
from steps.submission.__main__ import step as submission_step

SCORES = {
    "rouge1": 98.7654,
    "rouge2": 97.1,
    "rougeL": 98.5,
    "tokens_per_sample": 28.7,
    "exact_match": 97.25,
}


def build(
    plan: Plan, root: Path, *, engine: str = "vllm", values: Mapping[str, float] | None = None
) -> None:
    """Publish every job above the submission, in the plan's order, below `root`.

    `values`: results by the cell's key, in tokens/s; the others are 1,234.5.
    """
    for job in plan.jobs:
        if job.step not in ("submission", "report"):
            inputs = {role: root / path for role, path in job.inputs.items()}
            for path in inputs.values():
                if not path.exists():  # a lock or an embedded manifest
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text("{}", encoding="utf-8")
            config = json.loads(job.config)
            with publish(
                (root / job.output).parent, step=job.step, config=config, inputs=inputs, code="c"
            ) as workspace:
                workspace.result = _write(job, workspace.directory, engine)
                if job.step == "performance_check" and values and job.key in values:
                    workspace.result["value"] = values[job.key]


def package(plan: Plan, root: Path, submitter: str | None = None) -> None:
    """The real submission step on what `build` left; `submitter` is what it says it is of."""
    job = next(job for job in plan.jobs if job.step == "submission")
    config = schema.SubmissionConfig.model_validate_json(job.config)
    folder = (root / job.output).parent
    with publish(folder, step="submission", config={}, inputs={}, code="c") as workspace:
        submission_step(config, inputs_of(plan, root, "submission"), workspace, None)  # type: ignore[arg-type]
        workspace.result["submitter"] = submitter or config.submitter


def report(plan: Plan, root: Path) -> Path:
    """The real report step on what `build` and `package` left; returns the report's directory."""
    job = next(job for job in plan.jobs if job.step == "report")
    config = schema.ReportConfig.model_validate_json(job.config)
    made = Workspace(root / "made")
    made.directory.mkdir(exist_ok=True)
    report_step(config, inputs_of(plan, root, "report"), made, None)  # type: ignore[arg-type]
    return made.directory


def inputs_of(plan: Plan, root: Path, step: str) -> dict[str, Path]:
    """Roles and manifests of the one job of a step."""
    job = next(job for job in plan.jobs if job.step == step)
    return {role: root / path for role, path in job.inputs.items()}


def published_row(value: float | None, **changes: object) -> Result:
    """A published result of Maker's 8 × MI325X."""
    fields: dict[str, object] = {
        "source": "published",
        "round": "v9.9",
        "id": "9.9-0001",
        "submitter": "Maker",
        "availability": "available",
        "division": "closed",
        "suite": "datacenter",
        "system": "a server",
        "platform": "8x",
        "benchmark": "llama2-70b-99",
        "model": "llama2-70b-99",
        "scenario": "Offline",
        "nodes": 1,
        "accelerators_per_node": 8,
        "accelerator": "AMD Instinct MI325X 256GB HBM3e",
        "processor": "a CPU",
        "processors_per_node": 2,
        "software": "an engine",
        "operating_system": "an OS",
        "precision": "fp8",
        "accuracy": {"ROUGE1": 44.0, "ROUGEL": 28.0},
        "value": value,
        "unit": "Tokens/s",
        "location": "closed/Maker",
        "problems": () if value else ("the result is 0, not a positive number",),
    }
    return Result(**{**fields, **changes})  # type: ignore[arg-type]


def answers_log(samples: int, tokens: int = 28) -> str:
    """mlperf_log_accuracy.json of `samples` answers."""
    data = array("i", [*range(10, 10 + tokens - 1), 2]).tobytes().hex().upper()
    lines = [
        f'{{ "seq_id" : {n}, "qsl_idx" : {n}, "data" : "{data}", "token_count" : {tokens} }}'
        for n in range(samples)
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _write(job: Job, folder: Path, engine: str) -> dict[str, Any]:
    if job.step == "describe":
        fields = schema.DescribeConfig.model_validate_json(job.config)
        system = {name: fields.fields.get(name, "probed") for name in fields.required}
        _text(folder / "system.json", json.dumps(system))
        return {}
    if job.step.endswith("_run"):
        return _run(job, folder, engine)
    if job.step == "performance_check":
        return _performance(job)
    if job.step == "accuracy_check":
        return _accuracy(job, folder)
    if job.step == "quick_check":
        return _quick(job)
    if job.step == "compliance_check":
        _text(folder / "verify_accuracy.txt", "First token check pass: True\n")
        _text(folder / "accuracy/mlperf_log_accuracy.json", answers_log(100))
        return {"test": "TEST06", "passed": True}
    if job.step == "quick_check":
        return _checked(job)
    if job.step == "prune":
        distances = [[abs(i - j) / 100 for j in range(16)] for i in range(16)]
        importance = {"samples": 64, "ffn_output": [1.0] * 15, "angular_distance": distances}
        return {"simulated": False, "dropped_layers": [7, 11], "importance": importance}
    return {"simulated": False}


def _checked(job: Job) -> dict[str, Any]:
    after = json.loads(job.config)["after"]
    return {
        "after": after,
        "samples": 256,
        "score": 98.7,
        "ratio": 99.18 if after == "quantize" else 9.02,
        "low": 98.4,
        "high": 99.78,
        "minimum": 100 * json.loads(job.config)["minimum"],
        "gigabytes": 0.0016,
    }


def _run(job: Job, folder: Path, engine: str) -> dict[str, Any]:
    samples = 100
    _text(folder / "user.conf", "llama2-70b.Offline.target_qps = 80\n")
    _text(folder / "mlperf_log_summary.txt", "Result is : VALID\n")
    _text(folder / "mlperf_log_detail.txt", ':::MLLOG {"key": "a"}\n')
    performance = job.step == "performance_run"
    _text(folder / "mlperf_log_accuracy.json", "[\n]\n" if performance else answers_log(samples))
    offline = job.key.endswith("Offline")
    rows = [
        f"{n},90,28,{n * 0.02},{'' if offline else n * 0.02 + 0.03},{n * 0.02 + 0.4}"
        for n in range(samples)
    ]
    header = "sample_index,input_tokens,output_tokens,issued_s,first_token_s,completed_s"
    _text(folder / "samples.csv", "\n".join([header, *rows]) + "\n")
    return {
        "mode": "PerformanceOnly",
        "scenario": job.key.rsplit("/", 1)[-1],
        "engine": {"name": engine, "version": "0.32.0", "device": "cpu", "emulated": False},
        "loadgen_version": "5.1.2",
        "samples": samples,
        "output_tokens": 2800,
        "duration_s": 2.4,
        "engine_start_s": 9.0,
    }


def _performance(job: Job) -> dict[str, Any]:
    offline = job.key.endswith("Offline")
    latency = {"p50": 20.0, "p90": 30.0, "p95": 33.0, "p97": 35.0, "p99": 39.5, "p99.9": 61.0}
    return {
        "valid": True,
        "metric": "tokens_per_second",
        "value": 1234.5,
        "unit": "Tokens/s",
        "samples_per_second": 43.2,
        "target_qps": 40.0,
        "ttft_ms": None if offline else latency,
        "tpot_ms": None if offline else latency,
        "limits": {
            "ttft_ms": None if offline else 450.0,
            "tpot_ms": None if offline else 40.0,
        },
        "loadgen_version": "5.1.2",
    }


def _metrics(gate: schema.Gates | schema.Bounds) -> dict[str, dict[str, float]]:
    """Scores of 0.4 per mille above the reference, or above the least of a round's bounds."""
    if isinstance(gate, schema.Gates):
        return {
            name: {"score": 1.0004 * score, "minimum": gate.factor * score, "ratio": 1.0004}
            for name, score in gate.reference.items()
        }
    return {
        name: {"score": 1.0004 * bound, "minimum": bound, "ratio": 1.0004}
        for name, bound in gate.minimum.items()
    }


def _accuracy(job: Job, folder: Path) -> dict[str, Any]:
    _text(folder / "accuracy.txt", "\nResults\n\n{'rouge1': 98.7654}\n")
    config = schema.AccuracyCheckConfig.model_validate_json(job.config)
    gates = {
        name: {"passed": name == config.required, "metrics": _metrics(gate)}
        for name, gate in config.gates.items()
    }
    result = {"scores": SCORES, "gates": gates, "required": config.required}
    _text(folder / "accuracy.json", json.dumps(result))
    return result


def _quick(job: Job) -> dict[str, Any]:
    after = schema.QuickCheckConfig.model_validate_json(job.config).after
    share = {"score": 98.3, "ratio": 99.95, "low": 99.82, "high": 100.04, "minimum": 99.0}
    return {"after": after, "samples": 128, "gigabytes": 0.0072, **share}


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
