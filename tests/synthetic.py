"""A finished experiment without its hours: well-formed outputs of every job up to the verdicts."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from steps.base.record import (
    RECORD,
    Manifest,
    Origin,
    Record,
    Workspace,
    publish,
    sha256_file,
    stamped,
)
from steps.config.artifacts import DescribeConfig
from steps.config.checks import AccuracyCheckConfig, Bounds, Gates, QuickCheckConfig
from steps.config.resolved import Resolved
from steps.config.submission import ProvenanceConfig, SubmissionConfig
from steps.config.verdicts import ComplianceVerdict, as_result
from steps.judge.compliance import verify
from steps.mlperf.accuracy_text import LABELS
from steps.mlperf.published.result import Result
from steps.mlperf.rounds import Benchmark, load
from steps.plan.plan import Job, Plan
from steps.report.__main__ import write
from steps.submit.provenance.__main__ import step as provenance_step
from steps.submit.submission.__main__ import step as submission_step
from tests.submit.validate import trees

RULES = load("v5.1")
SCORES = {
    "rouge1": 98.7654,
    "rouge2": 97.1,
    "rougeL": 98.5,
    "tokens_per_sample": 28.7,
    "exact_match": 97.25,
}


ENGINE_SAID = Resolved(
    attention="CPU_ATTN",
    kernels={"UnquantizedLinearMethod": 60},
    graphs="NONE",
    kv_cache_blocks=2048,
    block_size=128,
    variables={"VLLM_CPU_KVCACHE_SPACE": "read", "VLLM_FP8_PADDING": "unread"},
    differences=("arguments.async_scheduling: True was asked for, the engine has False",),
)
"""What the engine of every run made of its settings."""


class Maker:
    """Outputs of a plan's jobs. Runs follow each other on one clock, and no two logs are alike."""

    def __init__(
        self,
        plan: Plan,
        engine: str,
        values: Mapping[str, float],
        degraded: Sequence[str],
        exposed: Sequence[str],
    ) -> None:
        self.engine = engine
        self.degraded, self.exposed = degraded, exposed
        self.values = values
        self.clock = trees.Clock()
        self.made = 0
        job = next(job for job in plan.jobs if job.step == "submission")
        cells = SubmissionConfig.model_validate_json(job.config).cells
        # What a run is submitted as comes with rising bounds, and it holds the last of them.
        self.official = {cell.key: cell.packages[-1].official for cell in cells}

    def benchmark(self, job: Job) -> tuple[str, Benchmark]:
        """The official name and the rules of a cell's benchmark; quick runs have no cell."""
        name = self.official.get("/".join(job.key.split("/")[:5]), "llama2-70b-99")
        return name, RULES.benchmarks[name]


def build(
    plan: Plan,
    root: Path,
    *,
    engine: str = "vllm",
    values: Mapping[str, float] | None = None,
    degraded: Sequence[str] = (),
    exposed: Sequence[str] = (),
) -> None:
    """Publish every job above the submission, in the plan's order, below `root`.

    `values`: results by the cell's key, in tokens/s; the others are 1,234.5. `degraded`, `exposed`:
    what every run says of its engines and its cluster.
    """
    maker = Maker(plan, engine, values or {}, degraded, exposed)
    for job in plan.jobs:
        if job.step not in ("submission", "provenance"):
            publish_job(maker, job, root)


def _published(
    job: Job, inputs: Mapping[str, Path], root: Path
) -> AbstractContextManager[Workspace]:
    """A workspace that becomes the job's output, below `root`."""
    return publish(
        (root / job.output).parent,
        step=job.step,
        config=json.loads(job.config),
        inputs=inputs,
        code="c",
        origin=Origin(container=job.container),
    )


def publish_job(maker: Maker, job: Job, root: Path) -> None:
    """One job's output, below `root`."""
    inputs = {role: root / path for role, path in job.inputs.items()}
    for path in inputs.values():
        if not path.exists():  # a lock or an embedded manifest
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}", encoding="utf-8")
    maker.made += 1
    with _published(job, inputs, root) as workspace:
        workspace.result = _write(maker, job, workspace.directory, inputs)


def package(plan: Plan, root: Path) -> None:
    """The real submission step on what `build` left."""
    job = next(job for job in plan.jobs if job.step == "submission")
    config = SubmissionConfig.model_validate_json(job.config)
    inputs = inputs_of(plan, root, "submission")
    with _published(job, inputs, root) as workspace:
        submission_step(config, inputs, workspace, None)  # type: ignore[arg-type]
    provenance(plan, root)


def provenance(plan: Plan, root: Path) -> Path:
    """The real provenance step on the same; returns its directory."""
    job = next(job for job in plan.jobs if job.step == "provenance")
    config = ProvenanceConfig.model_validate_json(job.config)
    folder = (root / job.output).parent
    inputs = inputs_of(plan, root, "provenance")
    for path in inputs.values():
        if path.suffix == ".lock":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"attrs==26.1.0 --hash=sha256:{64 * '1'}\n", encoding="utf-8")
    with _published(job, inputs, root) as workspace:
        provenance_step(config, inputs, workspace, None)  # type: ignore[arg-type]
    return folder


def made_otherwise(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A result as a step would have left it that comes to something else; `path`: its manifest.

    Digests of changed files are taken anew. What was made from it before still names the old one.
    """
    manifest, record = Manifest.read(path), Record.read(path)
    fields = json.loads(path.read_text(encoding="utf-8"))
    change(fields)
    with publish(
        path.parent, step=fields["step"], config=fields["config"], inputs={}, code=""
    ) as w:
        for name in manifest.files:
            (w.directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path.parent / name, w.directory / name)
        w.result = fields["result"]
    made = {**json.loads(path.read_text(encoding="utf-8")), "inputs": fields["inputs"]}
    written = stamped({name: value for name, value in made.items() if name != "digest"})
    path.write_text(written, encoding="utf-8")
    path.with_name(RECORD).write_text(record.text(sha256_file(path)), encoding="utf-8")


def report(plan: Plan, root: Path) -> Path:
    """The page of what `build` and `package` left; returns the report's directory."""
    made = root / "made"
    made.mkdir(exist_ok=True)
    write(plan, root, made, made)
    return made


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


def _write(maker: Maker, job: Job, folder: Path, inputs: Mapping[str, Path]) -> dict[str, Any]:
    if job.step == "describe":
        fields = DescribeConfig.model_validate_json(job.config)
        counts = dict.fromkeys(("host_processors_per_node", "accelerators_per_node"), "8")
        probed = {name: counts.get(name, "probed") for name in fields.required}
        system = {name: fields.fields.get(name, probed[name]) for name in fields.required}
        _text(folder / "system.json", json.dumps(system))
        return {}
    if job.step.endswith("_run"):
        return _run(maker, job, folder)
    if job.step == "performance_check":
        return _performance(job) | {"value": maker.values.get(job.key, 1234.5)}
    if job.step == "accuracy_check":
        return _accuracy(job, maker.benchmark(job)[1], folder)
    if job.step == "quick_check":
        return _quick(job)
    if job.step == "compliance_check":
        return _compliance(maker, job, folder, inputs)
    if job.step == "prune":
        distances = [[abs(i - j) / 100 for j in range(16)] for i in range(16)]
        importance = {"samples": 64, "ffn_output": [1.0] * 15, "angular_distance": distances}
        changed = {"dropped_layers": [7, 11], "importance": importance}
        return {"name": "tiny", "simulated": False, **changed}
    if job.step == "container":
        return {"image": f"sha256:{64 * '0'}", "python": "/opt/steps/bin/python"}
    if job.step == "environment":
        return {"name": "tiny", "python": "3.11.2"}
    if job.step == "dataset":
        prompts = {"samples": 100, "input_tokens_mean": 90.0}
        return {"evaluation": prompts, "calibration": prompts}
    return {"name": "tiny", "simulated": False}


def _run(maker: Maker, job: Job, folder: Path) -> dict[str, Any]:
    samples = 100
    config = json.loads(job.config)
    official, benchmark = maker.benchmark(job)
    scenario = config.get("scenario", "Offline")
    mode = "AccuracyOnly" if job.step == "accuracy_run" else "PerformanceOnly"
    audit: dict[str, Any] = {}
    if job.step == "compliance_run":
        rule = RULES.compliance[config["test"]]
        audit = rule.settings()
        if rule.logs_answers:
            target = rule.audit["accuracy_log_sampling_target"]
            audit["effective_accuracy_log_sampling_target"] = target
    if scenario == "Server" and not benchmark.token_latencies:
        audit["effective_target_latency_ns"] = benchmark.target_latency_ms["Server"] * 10**6
    trees.run(folder, official, scenario, mode, maker.clock, audit)
    _text(folder / "user.conf", "*.*.target_qps = 40\n*.*.min_duration = 600000\n")
    offline = scenario == "Offline"
    timed = not offline and benchmark.token_latencies
    answers = trees.answers(samples, timed=timed, salt=1000 + maker.made)
    logs = mode == "AccuracyOnly" or audit.get("effective_accuracy_log_sampling_target")
    _text(folder / "mlperf_log_accuracy.json", answers if logs else "[\n]\n")
    rows = [
        f"{n},90,28,{n * 0.02},{'' if offline else n * 0.02 + 0.03},{n * 0.02 + 0.4}"
        for n in range(samples)
    ]
    header = "sample_index,input_tokens,output_tokens,issued_s,first_token_s,completed_s"
    _text(folder / "samples.csv", "\n".join([header, *rows]) + "\n")
    return {
        "mode": mode,
        "scenario": scenario,
        "engine": {"name": maker.engine, "version": "0.32.0", "device": "cpu", "emulated": False},
        "engines": [],
        "failures": [],
        "degraded": list(maker.degraded),
        "exposed": list(maker.exposed),
        "loadgen_version": "5.1.2",
        "dropped_variables": 41,
        "resolved": ENGINE_SAID.model_dump(mode="json", exclude={"configuration"}),
        "samples": samples,
        "output_tokens": 2800,
        "duration_s": 2.4,
        "engine_start_s": 9.0,
    }


def _compliance(maker: Maker, job: Job, folder: Path, inputs: Mapping[str, Path]) -> dict[str, Any]:
    config = json.loads(job.config)
    test, run = config["test"], inputs["run"].parent
    if test == "TEST06":
        first = "Skipped" if config["scenario"] == "Offline" else "True"
        lines = [f"First token check pass: {first}", "EOS check pass: True"]
        _text(folder / verify.ACCURACY, "\n".join([*lines, "Sample length check pass: True\n"]))
        log = (run / verify.ANSWERS).read_text(encoding="utf-8")
        _text(folder / "accuracy" / verify.ANSWERS, log)
    else:
        speed = "Reference score = 40.0\nTest score = 40.0\nTEST PASS\n"
        texts = {verify.SPEED: speed}
        if test == "TEST01":
            texts[verify.ACCURACY] = "num_perf_log_entries = 100\nTEST PASS\n"
        verify.package(folder, run, texts)
    return as_result(ComplianceVerdict(holds=True, complaints=(), test=test))


def _performance(job: Job) -> dict[str, Any]:
    offline = job.key.endswith("Offline")
    latency = {"p50": 20.0, "p90": 30.0, "p95": 33.0, "p97": 35.0, "p99": 39.5, "p99.9": 61.0}
    return {
        "holds": True,
        "complaints": [],
        "window": None,
        "metric": "tokens_per_second",
        "value": 1234.5,
        "unit": "Tokens/s",
        "samples_per_second": 43.2,
        "query_count": 100,
        "target_qps": 40.0,
        "ttft_ms": None if offline else latency,
        "tpot_ms": None if offline else latency,
        "latency_ms": None,
        "limits": {
            "ttft_ms": None if offline else 450.0,
            "tpot_ms": None if offline else 40.0,
            "latency_ms": None,
        },
        "min_duration_ms": 1000,
        "loadgen_version": "5.1.2",
    }


def _metric(reference: float, minimum: float) -> dict[str, float | bool]:
    return {"score": 1.0004 * reference, "minimum": minimum, "ratio": 1.0004, "passed": True}


def _metrics(gate: Gates | Bounds) -> dict[str, dict[str, float | bool]]:
    """Scores of 0.4 per mille above the reference, or above the least of a round's bounds."""
    if isinstance(gate, Gates):
        return {name: _metric(score, gate.factor * score) for name, score in gate.reference.items()}
    return {name: _metric(bound, bound) for name, bound in gate.minimum.items()}


def _accuracy(job: Job, benchmark: Benchmark, folder: Path) -> dict[str, Any]:
    bounds = {**benchmark.accuracy.maximum, **benchmark.accuracy.minimum}
    printed = [
        f"{LABELS[name][0]} {benchmark.accuracy.minimum.get(name, 0.0) + 0.001:.4f}"
        for name in bounds
    ]
    _text(folder / "accuracy.txt", f"\nResults\n\n{{{', '.join(printed)}}}\n")
    for kind, stems in benchmark.extra_accuracy_files.items():
        (folder / kind).mkdir()
        for stem in stems:
            (folder / kind / f"{stem}.png").write_bytes(trees.png())
        _text(folder / kind / "captions.txt", "a cat\n")
    config = AccuracyCheckConfig.model_validate_json(job.config)
    gates = {
        name: {"passed": name == config.required, "metrics": _metrics(gate)}
        for name, gate in config.gates.items()
    }
    result = {
        **{"holds": True, "complaints": [], "window": None},
        **{"scores": SCORES, "gates": gates, "required": config.required},
    }
    _text(folder / "accuracy.json", json.dumps(result))
    return result


def _quick(job: Job) -> dict[str, Any]:
    config = QuickCheckConfig.model_validate_json(job.config)
    share = 99.18 if config.after == "quantize" else 9.02
    return {
        **{"holds": True, "complaints": []},
        "after": config.after,
        "samples": 256,
        "score": 98.7,
        "ratio": share,
        "low": share - 0.7,
        "high": share + 0.6,
        "minimum": 100 * config.minimum,
        "gigabytes": 0.0016,
    }


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


LATE = {
    "code": "ttft",
    "words": "p99 TTFT is 4056.2 ms, the limit of Server is 2000 ms",
    "value": 4056.2,
    "limit": 2000.0,
    "fix": "lower set.Server.target_qps",
}
"""A complaint of a performance check."""


def job_of(plan: Plan, step: str, scenario: str = "") -> Job:
    """The first of a step, of a scenario if one is named."""
    return next(j for j in plan.jobs if j.step == step and f"/{scenario}" in f"/{j.key}")


def invalid(plan: Plan, home: Path, scenario: str) -> None:
    verdict = {"holds": False, "complaints": [LATE]}
    path = home / job_of(plan, "performance_check", scenario).output
    made_otherwise(path, lambda fields: fields["result"].update(verdict))


def gone(plan: Plan, home: Path, step: str, scenario: str, said: str = "") -> None:
    one = job_of(plan, step, scenario)
    shutil.rmtree((home / one.output).parent)
    if said:
        (home / one.log).parent.mkdir(parents=True, exist_ok=True)
        (home / one.log).write_text(f"loading\n{said}\n", encoding="utf-8")
