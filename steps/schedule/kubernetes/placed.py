"""Which jobs run in Kubernetes; read by the Snakefile too, so without its client."""

from collections.abc import Iterable

from steps.plan.plan import Job
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
