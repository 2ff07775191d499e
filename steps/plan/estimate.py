"""What a job will cost: measured where it has run before, computed from its configuration else."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.record import Record
from steps.plan.plan import Job
from steps.plan.unsupported import limitation

START_S = 40.0
"""Start of an engine and its LoadGen process: 25 to 60 s on two busy cores, November 2026."""

ENVIRONMENTS = {
    "cpu": (180.0, 3.6),
    "analysis": (40.0, 0.5),
    "compress": (120.0, 1.9),
    "images": (60.0, 1.2),
}
"""Seconds and gigabytes of a first installation, measured on two cores, November 2026."""

SHORT_S = 10.0
QUARK_S = 60.0
QUICK_QPS = 40.0
TRAINED_PER_S = 10.0
"""Samples that the rehearsal model is fine-tuned on in a second, on one busy core."""

SAMPLE_BYTES = 1500
"""Log bytes per sample: an accuracy log's hexadecimal tokens plus a line of samples.csv."""


@dataclass(frozen=True)
class Cost:
    """Machine-seconds and disk of a job; seconds None: nothing is known of it.

    `measured`: the seconds are those of an earlier run of this very job.
    """

    seconds: float | None
    gigabytes: float
    measured: bool


def computed_cost(job: Job, evaluation_count: int) -> Cost:
    """Cost of one job on one node, by its configuration alone."""
    config = json.loads(job.config)
    if job.step not in _COSTS and limitation(job.step, config):
        return Cost(None, 0.0, False)
    return _COSTS.get(job.step, _short)(job.key, config, evaluation_count)


def cost(job: Job, evaluation_count: int, nodes: int, root: Path) -> Cost:
    """Cost of one job, of a cell with that many samples on a system of that many nodes."""
    computed = computed_cost(job, evaluation_count)
    seconds, measured = computed.seconds, False
    try:
        record = Record.read(root / job.output)
        started, finished = map(datetime.fromisoformat, (record.started, record.finished))
        seconds, measured = (finished - started).total_seconds(), True
    except (UserError, TypeError, ValueError):
        pass
    if seconds is not None and job.step.endswith("_run"):
        seconds *= nodes
    return Cost(seconds, computed.gigabytes, measured)


def evaluation_counts(jobs: Iterable[Job]) -> dict[str, int]:
    """Samples of the dataset of every run, by the run's output."""
    jobs = tuple(jobs)
    sizes = {
        job.output: int(json.loads(job.config)["evaluation_count"])
        for job in jobs
        if job.step == "dataset"
    }
    return {
        job.output: sizes[job.inputs["dataset"]]
        for job in jobs
        if job.inputs.get("dataset") in sizes
    }


def _short(key: str, config: Mapping[str, Any], samples: int) -> Cost:
    return Cost(SHORT_S, 0.01, False)


def _environment(key: str, config: Mapping[str, Any], samples: int) -> Cost:
    return Cost(*ENVIRONMENTS.get(key, ENVIRONMENTS["cpu"]), False)


def _image(key: str, config: Mapping[str, Any], samples: int) -> Cost:
    if config.get("lock") not in ENVIRONMENTS:
        return Cost(None, 0.0, False)
    return _environment(config["lock"], config, samples)


def _performance(key: str, config: Mapping[str, Any], samples: int) -> Cost:
    loadgen, rules = config["loadgen"], config["rules"]
    duration_s = (loadgen["min_duration_ms"] or rules["min_duration_ms"]) / 1000
    copy = loadgen["performance_sample_count_override"] or rules["performance_sample_count"]
    # Equal issue: LoadGen rounds up to whole copies of the dataset (facts of LoadGen 5.1.2).
    copies = max(1, -(-duration_s * loadgen["target_qps"] // copy))
    issued = max(copies * copy, loadgen["min_query_count"] or 0)
    return _run_cost(issued, loadgen["target_qps"])


def _accuracy(key: str, config: Mapping[str, Any], samples: int) -> Cost:
    return _run_cost(samples, config["loadgen"]["target_qps"])


def _compliance(key: str, config: Mapping[str, Any], samples: int) -> Cost:
    """Only TEST06 is short; a test that sets no query count is a whole performance run."""
    if "min_query_count" in config["audit"]:
        return _run_cost(config["audit"]["min_query_count"], config["loadgen"]["target_qps"])
    return _performance(key, config, samples)


def _quick(key: str, config: Mapping[str, Any], samples: int) -> Cost:
    return Cost(START_S + config["samples"] / QUICK_QPS, 0.001, False)


def _finetune(key: str, config: Mapping[str, Any], samples: int) -> Cost:
    """How long training larger models than the rehearsal's takes isn't known."""
    if config["data"]["kind"] == "notes":
        return Cost(config["data"]["training_samples"] / TRAINED_PER_S, 0.01, False)
    return Cost(None, 0.0, False)


def _model(key: str, config: Mapping[str, Any], samples: int) -> Cost:
    """How long a download takes isn't known."""
    return Cost(SHORT_S if "embedded" in config else None, 0.01, False)


def _quantize(key: str, config: Mapping[str, Any], samples: int) -> Cost:
    """AMD Quark's import alone takes 20 to 60 s; larger models than the rehearsal's: not known."""
    if config["tool"] == "simulated":
        return _short(key, config, samples)
    return Cost(QUARK_S if limitation("quantize", config) is None else None, 0.01, False)


def _run_cost(samples: float, rate: float) -> Cost:
    return Cost(START_S + samples / rate, samples * SAMPLE_BYTES / 1e9, False)


_COSTS: Mapping[str, Callable[[str, Mapping[str, Any], int], Cost]] = {
    "model": _model,
    "quantize": _quantize,
    "finetune": _finetune,
    "quick_run": _quick,
    "environment": _environment,
    "container": _image,
    "performance_run": _performance,
    "accuracy_run": _accuracy,
    "compliance_run": _compliance,
}
