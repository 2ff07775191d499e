"""Which jobs run in Kubernetes; read by the Snakefile too, so without its client."""

import sys
from collections.abc import Iterable
from pathlib import Path

from steps.config.scheduler import Kubernetes
from steps.plan.plan import Job, Plan
from steps.schedule.resources import SHARING, STAYING

DESCRIBES = "describe"


def placed(job: Job) -> bool:
    """Whether it needs a node. Judging stays here: code that a model wrote runs in its own
    namespaces, which a pod may not create.
    """
    return job.step not in (*STAYING, *SHARING)


def image_job(job: Job, jobs: Iterable[Job]) -> Job:
    """The job whose image and settings it uses: a node's description takes those of its runs."""
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
