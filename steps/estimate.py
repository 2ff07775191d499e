"""What a job will cost: measured where it has run before, computed from its configuration else."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from steps import schema
from steps.plan import Job
from steps.record import RECORD

START_S = 40.0
"""Start of an engine and its LoadGen process: 25 to 60 s on two busy cores, November 2026."""

ENVIRONMENTS = {"cpu": (180.0, 3.6), "analysis": (40.0, 0.5)}
"""Seconds and gigabytes of a first installation, measured on two cores, November 2026."""

SHORT_S = 10.0
SAMPLE_BYTES = 1500
"""Log bytes per sample: an accuracy log's hexadecimal tokens plus a line of samples.csv."""


@dataclass(frozen=True)
class Cost:
    """`measured`: the seconds are those of an earlier run of this very job."""

    seconds: float
    gigabytes: float
    measured: bool


def cost(job: Job, dataset: schema.DatasetConfig, root: Path) -> Cost:
    """Cost of one job; `dataset` is the one its cell runs on."""
    computed = _COSTS.get(job.step, _short)(job, dataset)
    record = (root / job.output).with_name(RECORD)
    try:
        times = json.loads(record.read_text(encoding="utf-8"))
        started, finished = (datetime.fromisoformat(times[k]) for k in ("started", "finished"))
    except (OSError, ValueError, KeyError):
        return computed
    return Cost((finished - started).total_seconds(), computed.gigabytes, True)


def _short(job: Job, dataset: schema.DatasetConfig) -> Cost:
    return Cost(SHORT_S, 0.01, False)


def _environment(job: Job, dataset: schema.DatasetConfig) -> Cost:
    return Cost(*ENVIRONMENTS.get(job.key, ENVIRONMENTS["cpu"]), False)


def _performance(job: Job, dataset: schema.DatasetConfig) -> Cost:
    run = schema.PerformanceRunConfig.model_validate_json(job.config)
    loadgen, rules = run.loadgen, run.rules
    duration_s = (loadgen.min_duration_ms or rules.min_duration_ms) / 1000
    copy = loadgen.performance_sample_count_override or rules.performance_sample_count
    # Equal issue: LoadGen rounds up to whole copies of the dataset (facts of LoadGen 5.1.2).
    copies = max(1, -(-duration_s * loadgen.target_qps // copy))
    samples = copies * copy
    return _run_cost(samples, loadgen.target_qps)


def _accuracy(job: Job, dataset: schema.DatasetConfig) -> Cost:
    run = schema.AccuracyRunConfig.model_validate_json(job.config)
    return _run_cost(dataset.evaluation_count, run.loadgen.target_qps)


def _compliance(job: Job, dataset: schema.DatasetConfig) -> Cost:
    run = schema.ComplianceRunConfig.model_validate_json(job.config)
    return _run_cost(run.audit["min_query_count"], run.loadgen.target_qps)


def _run_cost(samples: float, rate: float) -> Cost:
    return Cost(START_S + samples / rate, samples * SAMPLE_BYTES / 1e9, False)


_COSTS: Mapping[str, Callable[[Job, schema.DatasetConfig], Cost]] = {
    "environment": _environment,
    "performance_run": _performance,
    "accuracy_run": _accuracy,
    "compliance_run": _compliance,
}
