"""Which jobs are Kubernetes': read by the Snakefile too, so without its client."""

import sys
from collections.abc import Iterable
from pathlib import Path

from steps.config.scheduler import Kubernetes
from steps.plan.plan import Job, Plan
from steps.schedule.resources import SHARING, STAYING

DESCRIBES = "describe"


def placed(job: Job) -> bool:
    """Whether it needs a node. What judges runs stays here: the code that a model wrote is run in
    namespaces of its own, which a pod may not make."""
    return job.step not in (*STAYING, *SHARING)


def image_job(job: Job, jobs: Iterable[Job]) -> Job:
    """Whose image and settings it has: a description of a node those of the runs there."""
    if job.step != DESCRIBES:
        return job
    return next(j for j in jobs if j.step == "performance_run" and j.key.startswith(f"{job.key}/"))


def launcher(job: Job, plan: Plan, path: Path) -> list[str]:
    """What the job's command is given to: what looks at its gates first, then what places it;
    nothing, where it has no gates and runs here."""
    gates = [sys.executable, "-m", "steps.run.gate", job.step, job.log, *job.gates, "--"]
    looked_at = gates if job.gates else []
    if not isinstance(plan.scheduler, Kubernetes) or not placed(job):
        return looked_at
    return [*looked_at, sys.executable, "-m", "steps.schedule.kubernetes.place", str(path)]
