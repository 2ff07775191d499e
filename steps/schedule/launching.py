"""What a job's command is given to; read by the Snakefile too, so without a scheduler's client."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps import ROOT
from steps.base.record import canonical_json
from steps.config.engine import SSH, Placement
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
    clocks = _with_clocks(job, plan, python) if plan.scheduler.name == "local" else []
    first = [*looked_at, *clocks]
    if outside(job):
        there = job.output, job.inputs["environment"], job.container
        return [*first, python, "-m", "steps.run.placing.outside", *there, "--"]
    if not isinstance(plan.scheduler, Kubernetes) or not placed(job):
        return first
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


def _with_clocks(job: Job, plan: Plan, python: str) -> list[str]:
    """What sets clocks for a measured run: on its machine, or on the nodes of its engines by the
    interpreter that starts these; nothing, where the site doesn't allow it or no clocks are
    named."""
    if not plan.sudo or STEPS[job.step].stage != "runs":
        return []
    engine = json.loads(job.config)["engine"]
    if not (power := engine.get("power")):
        return []
    if _cluster(job) == "none":
        return [python, "-m", "steps.run.clocks", canonical_json(power), "--"]
    there = python if job.container else f"{job.environment}/bin/python"
    return [there, "-m", "steps.run.placing.node_clocks", _order(engine), "--"]


def _order(engine: Mapping[str, Any]) -> str:
    """A steps.run.placing.node_clocks.Order, as JSON."""
    placement = Placement.model_validate_json(canonical_json(engine["placement"]))
    others = engine.get("power_on", {})
    order = {
        "kinds": [
            {
                "kind": kind.model_dump(mode="json"),
                "power": others.get(kind.hardware, engine["power"]),
            }
            for kind in placement.kinds
        ],
        "address": placement.cluster,
        "hosts": placement.hosts,
        "checkout": placement.checkout or str(ROOT),
    }
    return canonical_json(order)


def seen_late(job: Job) -> str:
    """A sentence about accelerators of nodes that only a cluster of Ray can be asked for, by what
    the plan itself makes; "" for any other run."""
    if STEPS[job.step].stage != "runs" or (cluster := _cluster(job)) in ("none", SSH, SLURM):
        return ""
    if not json.loads(job.config)["engine"]["placement"].get("kinds"):
        return ""
    return (
        f"the nodes of the Ray cluster {cluster} are looked at right before LoadGen starts, after "
        "weights and images are made; hosts that cluster.hosts names are asked before anything"
    )


def unclocked(job: Job, plan: Plan) -> str:
    """Why a run's clocks can't be set though the site allows it; "" if they can, or needn't be."""
    if not _with_clocks(job, plan, ""):
        return ""
    if (name := plan.scheduler.name) != "local":
        return (
            f"site.sudo=true sets clocks of runs that ./reproduce starts itself, and {name} starts "
            "these: set clocks in its prolog, and set site.sudo=false"
        )
    if (cluster := _cluster(job)) not in ("none", SSH, SLURM):
        return (
            "site.sudo=true sets clocks on this machine and on nodes that cluster.hosts names, and "
            f"not on those of a Ray cluster ({cluster}): name them, or set site.sudo=false"
        )
    return ""
