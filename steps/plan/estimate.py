"""What a job will cost: measured where it has run before, computed from its configuration else."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.record import Record
from steps.config.compression import PruneConfig
from steps.plan import capacity, rates
from steps.plan.plan import Job
from steps.plan.registry import STEPS
from steps.plan.spec import Cost, Facts


def computed_cost(job: Job, facts: Facts) -> Cost:
    """Cost of one job on one node, by its configuration alone."""
    return STEPS[job.step].cost(job.key, json.loads(job.config), facts)


def cost(job: Job, facts: Facts, nodes: int, root: Path) -> Cost:
    """Cost of one job, of a cell on a system of that many nodes."""
    computed = computed_cost(job, facts)
    seconds, measured = computed.seconds, False
    try:
        record = Record.read(root / job.output)
        started, finished = map(datetime.fromisoformat, (record.started, record.finished))
        seconds, measured = (finished - started).total_seconds(), True
    except (UserError, TypeError, ValueError):
        pass
    if seconds is not None and job.step.endswith("_run"):
        seconds *= nodes
    basis = "" if measured else computed.basis
    rough = computed.rough and not measured
    return Cost(seconds, computed.gigabytes, measured, basis, rough)


def facts_of(jobs: Iterable[Job]) -> dict[str, Facts]:
    """What the cost of every job depends on, by its output."""
    by_output = {job.output: job for job in jobs}
    configs = {output: json.loads(job.config) for output, job in by_output.items()}
    known, models = rates.load(), capacity.load().models

    def left_by(output: str) -> tuple[float | None, float]:
        """Billions of weights that a job leaves, and the bytes of each."""
        job, config = by_output[output], configs[output]
        if job.step == "model" and "mirror" not in job.inputs:
            model = models.get(config["name"])
            size = known.bytes_per_weight[config.get("format") or "none"]
            return (None if model is None else model.billions), size
        source = job.inputs.get("model", "")
        if source not in by_output:
            return None, known.bytes_per_weight["none"]
        billions, size = left_by(source)
        return _changed(job.step, config, billions, size, known)

    def facts(job: Job) -> Facts:
        dataset = job.inputs.get("dataset", "")
        samples = int(configs.get(dataset, {}).get("evaluation_count", 0))
        source = job.output if job.step == "model" else job.inputs.get("model", "")
        billions, size = left_by(source) if source in by_output else (None, 2.0)
        return Facts(known, samples, billions, size)

    return {output: facts(job) for output, job in by_output.items()}


def _changed(
    step: str, config: Mapping[str, Any], billions: float | None, size: float, known: rates.Rates
) -> tuple[float | None, float]:
    if step == "quantize" and not config["options"].get("rounded"):
        return billions, known.bytes_per_weight[config["format"]]
    if step == "upcycle":
        return None, size  # how much of the weights becomes experts isn't known
    if step == "prune" and billions is not None:
        return billions * (1 - PruneConfig(**config).dropped), size
    return billions, size
