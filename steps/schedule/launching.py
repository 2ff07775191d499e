"""What a job's command is given to; read by the Snakefile too, so without a scheduler's client."""

import json
import sys
from pathlib import Path

from steps.base.record import canonical_json
from steps.config.engine import SSH
from steps.config.scheduler import Kubernetes
from steps.plan.plan import Job, Plan
from steps.plan.registry import STEPS
from steps.run.placing.launch import SLURM
from steps.schedule.kubernetes.placed import placed


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


def cleared(job: Job, plan: Plan) -> bool:
    """Whether its command must not see the shell's variables. A pod has variables of its own; what
    places it may need those of a cloud."""
    in_a_pod = isinstance(plan.scheduler, Kubernetes) and placed(job)
    return STEPS[job.step].environment != "driver" and not in_a_pod


def starts_nodes(job: Job) -> bool:
    """Whether it starts engines on other nodes itself."""
    return STEPS[job.step].stage == "runs" and _cluster(job) in (SSH, SLURM)


def outside(job: Job) -> bool:
    """Whether it is a run in a container that starts engines on other nodes: from outside of it."""
    return bool(job.container) and starts_nodes(job)


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
