"""What a job will cost: measured where it has run before, computed from its configuration else."""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import Record
from steps.plan.plan import Job
from steps.plan.registry import STEPS
from steps.plan.spec import UNKNOWN, Cost, short


def computed_cost(job: Job, evaluation_count: int) -> Cost:
    """Cost of one job on one node, by its configuration alone."""
    spec = STEPS[job.step]
    if spec.cost is short and job.limitation:
        return UNKNOWN
    return spec.cost(job.key, json.loads(job.config), evaluation_count)


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
