"""`./reproduce plan --script`: what is due as a shell script, for nodes that Snakemake isn't on.

Every job has the command that ./reproduce would start, with the same variables taken away, gates
and launcher. Records that it leaves are those of ./reproduce, which finds nothing more to do.
"""

import shlex
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from steps.base import threads
from steps.base.record import canonical_json
from steps.base.version import Version
from steps.config.groups import NodeKind, Requirement
from steps.plan.code import Code, codes
from steps.plan.plan import Job, Plan, environment_directory
from steps.plan.registry import STEPS
from steps.schedule import launching
from steps.schedule.resources import Resources, nodes_of

CLEAR = "steps.base.variables"
"""Becomes a command without the variables that a measured step must not see."""


def script(plan: Plan, path: Path, due: Collection[str], root: Path) -> str:
    """A script for bash; `path`: of the frozen plan, `due`: outputs of the jobs that would run."""
    commands, known, version = Commands(plan, path, root), codes(root), Version.of(root)
    jobs = [job for job in plan.jobs if job.output in due]
    lines = [
        "#!/usr/bin/env bash",
        f"# Experiment {plan.experiment}, plan {path.stem}: {len(jobs)} of {len(plan.jobs)} jobs, "
        "in this order.",
        f"# {version}",
        "set -euo pipefail",
        f"cd {shlex.quote(str(root))}",
        threads.prefix(1).rstrip("; "),
    ]
    for number, job in enumerate(jobs, 1):
        words = commands.of(job, known[job.step], version)
        lines += ["", f"# {number} of {len(jobs)}: {commands.about(job)}", shlex.join(words)]
    return "\n".join(lines)


class Commands:
    """The commands of a plan's jobs."""

    def __init__(self, plan: Plan, path: Path, root: Path) -> None:
        self._plan = plan
        self._path = path
        self._python = f"{environment_directory(root, 'driver')}/bin/python"
        self._resources = Resources(plan)

    def of(self, job: Job, code: Code, version: Version) -> list[str]:
        """The words of one, to be started in the checkout."""
        cleared = launching.cleared(job, self._plan)
        origin = {"version": asdict(version), "code": code.digest, "container": job.container}
        return [
            *(self._python, "-m", CLEAR, "measured" if cleared else "driver"),
            *launching.launcher(job, self._plan, self._path, self._python),
            *(*job.launcher, "-m", STEPS[job.step].module, "--config", job.config),
            *("--input", *(f"{role}={path}" for role, path in job.inputs.items())),
            *("--output", job.output, "--log", job.log, "--code", *sorted(code.files)),
            *("--origin", canonical_json(origin)),
        ]

    def about(self, job: Job) -> str:
        """The step, its job, and where it has to run if not anywhere."""
        where = ""
        if STEPS[job.step].place == "nodes":
            where = _nodes(job, self._resources.requirement(job))
        return " ".join(filter(None, (job.step, job.key, where)))


def _nodes(job: Job, needed: Requirement) -> str:
    if nodes_of(job, needed) == 1:
        return f"on a node with {_has(needed.kinds[0])}"
    several = [f"{kind.nodes} nodes with {_has(kind)}" for kind in needed.kinds]
    return f"on {' and '.join(several)}"


def _has(kind: NodeKind) -> str:
    return f"{kind.accelerators} × {kind.hardware}" if kind.accelerators else kind.hardware
