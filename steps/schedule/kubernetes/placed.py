"""Which jobs run in Kubernetes; read by the Snakefile too, so without its client."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from steps.base.record import canonical_json
from steps.config.scheduler import Kubernetes
from steps.plan.plan import Job, Plan
from steps.plan.registry import STEPS
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


def launcher(job: Job, plan: Plan, path: Path, python: str = sys.executable) -> list[str]:
    """What the job's command is given to: what looks at its gates first, then what starts its
    engines on other nodes, sets clocks for it where the site allows that, or places it; nothing,
    where it needs none of these. `python`: the driver environment's."""
    gates = [python, "-m", "steps.run.gate", job.step, job.log, *job.gates, "--"]
    looked_at = gates if job.gates else []
    if outside(job):
        there = job.output, job.inputs["environment"], job.container
        return [*looked_at, python, "-m", "steps.run.placing.outside", *there, "--"]
    if plan.sudo and plan.scheduler.name == "local" and (power := power_of(job)):
        return [*looked_at, python, "-m", "steps.run.clocks", power, "--"]
    if not isinstance(plan.scheduler, Kubernetes) or not placed(job):
        return looked_at
    return [*looked_at, python, "-m", "steps.schedule.kubernetes.place", str(path)]


STARTED = ("ssh", "slurm")
"""Clusters whose nodes a run starts itself (steps.config.engine.Placement)."""


def outside(job: Job) -> bool:
    """Whether it is a run in a container that starts engines on other nodes: from outside of it."""
    if not job.container or STEPS[job.step].stage != "runs":
        return False
    return _cluster(job) in STARTED


def _cluster(job: Job) -> str:
    placement = json.loads(job.config)["engine"].get("placement", {})
    return str(placement.get("cluster", "none"))


def power_of(job: Job) -> str:
    """The clocks that a measured run was submitted with, as JSON; "" if it names none, or if its
    engines are on several nodes: clocks are set on the machine that the run is on."""
    if STEPS[job.step].stage != "runs" or _cluster(job) != "none":
        return ""
    power = json.loads(job.config)["engine"].get("power")
    return canonical_json(power) if power else ""
