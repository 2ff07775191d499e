"""What Reprise can plan but not execute, and what this machine lacks: said before anything runs.

What can't be executed was found when the plan was made (steps/plan/specs/) and is frozen in it. It
is read here as plain JSON: a repeated run pays for this check, so it imports no types.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steps.config.groups import Requirement
    from steps.plan.plan import Job

DEVICES: Mapping[str, tuple[str, str]] = {
    "gfx": ("/dev/kfd", "AMD's driver (amdgpu)"),
    "sm_": ("/dev/nvidiactl", "NVIDIA's driver"),
}
"""By the start of an architecture: the device that its driver makes, and the driver's name."""


def refusal(plan: Path, root: Path) -> str | None:
    """One sentence that says why a plan can't be run here; None if it can.

    Jobs whose results are there need nothing: an experiment that was run elsewhere can be packaged
    here.
    """
    frozen = json.loads(plan.read_text(encoding="utf-8"))
    if not all("limitation" in job for job in frozen["jobs"]):
        return f"{plan} was frozen by another version of Reprise; ./reproduce freezes it again"
    due = [job for job in frozen["jobs"] if not (root / job["output"]).exists()]
    running = {job["key"].split("/")[0] for job in due if job["step"].endswith("_run")}
    here = frozen["scheduler"]["name"] == "local"
    machines = [
        reason
        for needed in frozen["requirements"]
        if needed["system"] in running and (reason := missing(needed, here=here))
    ]
    steps = [f"step {step}: {reason}" for step, reason in limitations(due)]
    if not machines and not steps:
        return None
    reasons = [*_first(machines, 1, "systems"), *_first(steps, 3, "steps")]
    return (
        f"{frozen['experiment']} can't be run here, and nothing was started: {'; '.join(reasons)}; "
        "./reproduce plan shows what it consists of"
    )


def asked(
    requirements: "Iterable[Requirement]", due: "Iterable[Job]", busy: Callable[[], float]
) -> str | None:
    """One sentence for a user who starts runs that need an idle machine; None if none do.

    `busy`: the share of this machine's processors that somebody has now.
    """
    idle = {needed.system for needed in requirements if needed.idle}
    running = {job.key.split("/")[0] for job in due if job.step == "performance_run"}
    if not idle & running:
        return None
    return (
        f"{', '.join(sorted(idle & running))} asks for an idle machine at this length: its rates "
        "leave other work no room, and a run beside it may miss its limits; other programs have "
        f"{busy():.0%} of the processors now"
    )


def limitations(jobs: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The steps of these jobs that can't be executed here, each with its first reason."""
    seen = set()
    for job in jobs:
        reason = job["limitation"] or _lacking(job["programs"])
        if reason and job["step"] not in seen:
            seen.add(job["step"])
            yield job["step"], reason


def _lacking(programs: Mapping[str, str]) -> str | None:
    """The sentence of the first program that this machine doesn't have."""
    return next((words for name, words in programs.items() if shutil.which(name) is None), None)


def _first(reasons: list[str], shown: int, what: str) -> list[str]:
    more = len(reasons) - shown
    return [*reasons[:shown], *([f"and {more} more {what}"] if more > 0 else [])]


def missing(
    needed: Mapping[str, Any], devices: Path = Path("/"), *, here: bool = True
) -> str | None:
    """What this machine lacks for a steps.config.groups.Requirement; None if nothing.

    `here`: the system is this machine, and not nodes that a scheduler has. What several nodes have
    is looked at on each of them, before LoadGen starts (steps/run/placing/nodes.py).
    """
    if needed["model"] is None:
        return None
    wanted = f"{needed['count_per_node']} × {needed['model']}"
    if not here or needed["nodes"] > 1:
        return None
    device, driver = DEVICES[needed["architecture"][:3]]
    if not (devices / device.lstrip("/")).exists():
        return (
            f"system {needed['system']} needs {wanted}, but this machine has no {device} (the "
            f"accelerators or {driver} are missing)"
        )
    return None
