"""A plan on Kubernetes: checks what can be known before the start, then snakemake runs it.

Snakemake is the same as on one machine. Its jobs that need a node are commands that wait for a pod
(steps/schedule/kubernetes/place.py).
"""

import json
import subprocess
from pathlib import Path

from steps.base.errors import UserError
from steps.config.scheduler import Kubernetes
from steps.plan.frozen import RUNS_NOTHING
from steps.plan.plan import Job, Plan, load
from steps.schedule.environment import make
from steps.schedule.kubernetes.placed import image_job, placed
from steps.schedule.resources import Resources, nodes_of
from steps.schedule.supervisor import supervise

CHECK_LIMIT_S = 600.0


def run(path: Path, passed_on: list[str], root: Path) -> int:
    """Run snakemake on a frozen plan; returns its exit status.

    Raises UserError for what would fail in every pod.
    """
    plan = load(path)
    scheduler = plan.scheduler
    assert isinstance(scheduler, Kubernetes)
    require_images(plan)
    home = make(scheduler.name, root)
    if not any(argument in RUNS_NOTHING for argument in passed_on):
        _check(home, path, root)
    binary = str(home / "bin/snakemake")
    command = [
        *(binary, "--configfile", str(path.relative_to(root))),
        *("--workflow-profile", f"workflow/profiles/{scheduler.name}", *passed_on),
    ]
    return supervise(command, root, plan.stop_limit_s)


def show(path: Path, root: Path) -> int:
    """Print the manifests of all jobs of a plan that need a node."""
    plan = load(path)
    if not isinstance(plan.scheduler, Kubernetes):
        raise UserError("only scheduler=kubernetes has manifests; choose it")
    require_images(plan)
    return _asked(make(plan.scheduler.name, root), path, root, "show").returncode


def require_images(plan: Plan) -> None:
    """Raises UserError for a job without an image, and for several nodes without Ray."""
    resources = Resources(plan)
    for job in plan.jobs:
        if not placed(job):
            continue
        if not image_job(job, plan.jobs).container:
            raise UserError(
                f"{job.step} {job.key} has no image, and Kubernetes runs nothing else; choose "
                "runtime=docker or runtime=podman"
            )
        several = nodes_of(job, resources.requirement(job)) > 1
        if several and _cluster_of(job) not in ("auto", None):
            raise UserError(
                f"{job.step} {job.key} has several nodes, which Ray joins in Kubernetes; set "
                "hardware.engine.placement.cluster=auto"
            )


def _cluster_of(job: Job) -> str | None:
    """None for an engine that this version doesn't place."""
    placement = json.loads(job.config)["engine"].get("placement")
    return str(placement["cluster"]) if placement else None


def _check(home: Path, path: Path, root: Path) -> None:
    done = _asked(home, path, root, "check", stderr=subprocess.PIPE)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(last.removeprefix("error: "))


def _asked(
    home: Path, path: Path, root: Path, what: str, stderr: int | None = None
) -> "subprocess.CompletedProcess[str]":
    command = [str(home / "bin/python"), "-m", "steps.schedule.kubernetes.ask", what, str(path)]
    try:
        return subprocess.run(command, cwd=root, stderr=stderr, text=True, timeout=CHECK_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"the cluster hasn't answered within {CHECK_LIMIT_S:.0f} s; nothing was started"
        ) from error
