"""`python -m steps.schedule.kubernetes.ask check|show PLAN`: the objects of a plan. `show` prints
them; `check` asks the cluster whether it would accept them.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steps import ROOT
from steps.base.console import plain_output
from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config.scheduler import Kubernetes
from steps.plan.plan import Job, Plan, load
from steps.plan.registry import STEPS
from steps.schedule.kubernetes import images
from steps.schedule.kubernetes.api import Cluster, SilenceError
from steps.schedule.kubernetes.manifests import Manifests, text
from steps.schedule.kubernetes.place import machine
from steps.schedule.kubernetes.placed import image_job, placed
from steps.schedule.kubernetes.pods import Image


def main(arguments: list[str]) -> int:
    what, path = arguments
    try:
        plan = load(Path(path))
        if what == "show":
            for _, objects in manifests(plan, ROOT):
                print(text(objects), end="")
        else:
            check(plan, ROOT)
    except (UserError, SilenceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def check(plan: Plan, root: Path) -> None:
    """Raises UserError for an absent cluster, for missing permissions, and for a job that it would
    refuse: the first job of each step is tried there.
    """
    scheduler = plan.scheduler
    assert isinstance(scheduler, Kubernetes)
    whole = manifests(plan, root)
    due = [(job, made) for job, made in whole if not (root / job.output).exists()]
    if not due:
        return
    cluster = Cluster(scheduler)
    try:
        cluster.require(several_nodes=any(len(made) > 2 for _, made in due))
        for objects in {job.step: made for job, made in reversed(due)}.values():
            for made in objects:
                cluster.try_out(made)
    except SilenceError as error:
        raise UserError(
            f"the cluster at {cluster.host} doesn't answer ({error}); nothing was started"
        ) from error


def manifests(plan: Plan, root: Path) -> Iterator[tuple[Job, list[Any]]]:
    """The objects of every job that needs a node, as it would be started: with its image if that is
    built, and without the digests of code, which snakemake lists.
    """
    assert isinstance(plan.scheduler, Kubernetes)
    maker = Manifests(plan, machine(plan.scheduler))
    by_output = {job.output: job for job in plan.jobs}
    for job in plan.jobs:
        if placed(job):
            inputs = [f"{role}={path}" for role, path in job.inputs.items()]
            arguments = [
                *("-m", STEPS[job.step].module, "--config", job.config, "--input", *inputs),
                *("--output", job.output, "--log", job.log),
            ]
            made = by_output[image_job(job, plan.jobs).inputs["environment"]]
            yield job, maker.of(job, arguments, _image(root, made, plan.scheduler))


def _image(root: Path, made: Job, scheduler: Kubernetes) -> Image:
    """Nothing is pushed here."""
    if scheduler.registry is None and (root / made.output).exists():
        return images.of_nodes(Manifest.read(root / made.output))
    return images.planned(made.key, scheduler.registry)


if __name__ == "__main__":
    with plain_output():
        raise SystemExit(main(sys.argv[1:]))
