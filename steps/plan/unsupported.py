"""What of a plan can't be run here: said per cell before anything runs, so that the rest can.

What can't be executed, and what the user has to bring, was found when the plan was made
(steps/plan/specs/) and is frozen in it. It is read here as plain JSON: a repeated run pays for this
check, so it imports no types.
"""

import json
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steps.config.groups import Requirement
    from steps.plan.plan import Job

Json = Mapping[str, Any]

Missing = Callable[[Json, Sequence[Json]], str]
"""Takes a system's requirement and the jobs of one of its cells that aren't done; why the machines
that there are can't have them, or "" (steps.machine.look, steps.schedule.slurm)."""


def unseen(needed: Json, jobs: Sequence[Json]) -> str:
    """For a plan of which only the rest is asked, or whose machines say so themselves."""
    return ""


@dataclass(frozen=True)
class Standing:
    """A cell, and what keeps it from being run here.

    `wants`: the accelerators of a node, as "8 × AMD Instinct MI300X"; "" for a CPU. `machine`: why
    this machine isn't such a node, "" if it is, or if others are looked at when the cell's turn
    comes. `brings`: what the user has to bring, with the setting. `never`: what this version can't
    do. The last two are pairs of a step and a sentence. `due`: the cell's jobs that aren't done.
    """

    key: str
    wants: str = ""
    machine: str = ""
    brings: tuple[tuple[str, str], ...] = ()
    never: tuple[tuple[str, str], ...] = ()
    due: tuple[str, ...] = ()

    @property
    def system(self) -> str:
        return self.key.split("/")[0]

    @property
    def blocked(self) -> bool:
        return bool(self.machine or self.brings or self.never)

    @property
    def why(self) -> str:
        """All of it in one line."""
        steps = [f"step {step}: {reason}" for step, reason in (*self.never, *self.brings)]
        return "; ".join([*steps, *([self.machine] if self.machine else [])])


def refusal(
    plan: Path, root: Path, missing: Missing, due: Collection[str] | None = None
) -> str | None:
    """One sentence that says why nothing of a plan can be run here; None if something can.

    `due`: outputs that are about to be made. Then the sentence says why one of them can't be.
    """
    frozen = json.loads(plan.read_text(encoding="utf-8"))
    if not all("brings" in job for job in frozen["jobs"]):
        return f"{plan} was frozen by another version of Reprise; ./reproduce freezes it again"
    found = standings(frozen, root, missing, due)
    blocked = [one for one in found if one.blocked]
    if not blocked or (due is None and len(blocked) < len(found)):
        return None
    machines = list(dict.fromkeys(one.machine for one in blocked if one.machine))
    steps = dict(pair for one in blocked for pair in reversed((*one.never, *one.brings)))
    order = dict.fromkeys(job["step"] for job in frozen["jobs"])
    said = [f"step {step}: {steps[step]}" for step in order if step in steps]
    reasons = [*_first(machines, 1, "systems"), *_first(said, 3, "steps")]
    return (
        f"{frozen['experiment']} can't be run here, and nothing was started: {'; '.join(reasons)}; "
        "./reproduce plan shows what it consists of"
    )


def standings(
    frozen: Json, root: Path, missing: Missing, due: Collection[str] | None = None
) -> list[Standing]:
    """Every cell of a frozen plan, in its order.

    Jobs whose results are there need nothing: an experiment that was run elsewhere can be packaged
    here.
    """
    if due is None:
        due = {job["output"] for job in frozen["jobs"] if not (root / job["output"]).exists()}
    needed = {one["system"]: one for one in frozen["requirements"]}
    cells = _Cells(frozen["jobs"])
    found = []
    for key in cells.keys:
        jobs = [job for job in cells.jobs(key) if job["output"] in due]
        wants = needed[key.split("/")[0]]
        brings, never = _reasons(jobs)
        runs = any(job["step"].endswith("_run") for job in jobs)
        found.append(
            Standing(
                key=key,
                wants=f"{wants['count_per_node']} × {wants['model']}" if wants["model"] else "",
                machine=missing(wants, jobs) if runs else "",
                brings=brings,
                never=never,
                due=tuple(job["output"] for job in jobs),
            )
        )
    return found


def left(plan: Path, root: Path, missing: Missing) -> tuple[Standing, ...]:
    """The cells of a frozen plan that can't be run here."""
    frozen = json.loads(plan.read_text(encoding="utf-8"))
    return tuple(one for one in standings(frozen, root, missing) if one.blocked)


class _Cells:
    """The jobs of each cell: its runs and verdicts, its system's description and what they need."""

    def __init__(self, jobs: list[Json]) -> None:
        self._jobs = jobs
        self._by_output = {job["output"]: job for job in jobs}
        self.keys = [job["key"] for job in jobs if job["step"] == "performance_run"]

    def jobs(self, key: str) -> list[Json]:
        """In the plan's order."""
        waiting = [job["output"] for job in self._jobs if _of_cell(job, key)]
        wanted: set[str] = set()
        while waiting:
            output = waiting.pop()
            job = self._by_output.get(output)
            if job is not None and output not in wanted:
                wanted.add(output)
                waiting += [*job["inputs"].values(), *job["gates"]]
        return [job for job in self._jobs if job["output"] in wanted]


MEASURED = ("performance", "accuracy", "compliance")


def _of_cell(job: Json, key: str) -> bool:
    kind = job["step"].rpartition("_")[0]
    if kind in MEASURED:
        return bool(f"{job['key']}/".startswith(f"{key}/"))
    return bool(job["step"] == "describe" and job["key"] == key.split("/")[0])


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


def _reasons(jobs: Iterable[Json]) -> tuple[tuple[tuple[str, str], ...], ...]:
    """What has to be brought, and what can't be done; the first reason of each step."""
    brings: dict[str, str] = {}
    never: dict[str, str] = {}
    for job in jobs:
        if job["limitation"]:
            never.setdefault(job["step"], job["limitation"])
        elif lacking := job["brings"] or _lacking(job["programs"]):
            brings.setdefault(job["step"], lacking)
    return tuple(brings.items()), tuple(never.items())


def _lacking(programs: Mapping[str, str]) -> str | None:
    """The sentence of the first program that this machine doesn't have."""
    return next((words for program, words in programs.items() if not _has(program)), None)


def _has(program: str) -> bool:
    name, _, folders = program.partition(" in ")
    return shutil.which(name, path=folders or None) is not None


def _first(reasons: list[str], shown: int, what: str) -> list[str]:
    more = len(reasons) - shown
    return [*reasons[:shown], *([f"and {more} more {what}"] if more > 0 else [])]
