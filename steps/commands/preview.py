"""`./reproduce plan`: what would run, why, and its cost. Runs nothing."""

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from steps import ROOT
from steps.base.arguments import Parser, as_typed, json_argument, plan_arguments
from steps.base.strict import Strict
from steps.commands.doctor.needs import gated
from steps.commands.doctor.settings import Settings
from steps.commands.doctor.settings import load as load_settings
from steps.commands.graph import flowchart
from steps.commands.results import Asked, broken, lines
from steps.commands.script import script
from steps.config.submission import Cell
from steps.plan.due import Reason, due, told
from steps.plan.estimate import cost, facts_of
from steps.plan.frozen import frozen_plan
from steps.plan.plan import Job, Plan, load
from steps.plan.states import described, troubles
from steps.plan.unsupported import Standing, refusal, standings
from steps.prepare.fetch.hub import token
from steps.schedule.looking import missing_here


class StepCost(Strict):
    """The jobs of one step: how many there are, how many would run, why, and in how many seconds.

    `seconds` is None if that is not known of any; `unknown`: of how many it isn't. `why` counts
    reasons, in words, over jobs. `gigabytes` of disk; `basis`: what time and disk follow from,
    where that isn't the configuration alone.
    """

    step: str
    jobs: int
    due: int
    why: dict[str, int]
    waits: bool
    seconds: float | None
    unknown: int
    gigabytes: float
    basis: tuple[str, ...]


CellWhere = Literal["here", "elsewhere", "brings", "never"]
"""here: this machine can run it, or has. elsewhere: a node of its system can. brings: the user has
to bring something first. never: this version can't execute it.
"""


class PlannedCell(Strict):
    """One cell, and the benchmarks that the tree has it as; `where` it can be run, and in words."""

    key: str
    benchmark: str
    division: str
    submitted_as: tuple[str, ...]
    where: CellWhere
    says: str


class Preview(Strict):
    """What a plan would do; `seconds` of machine time, without the jobs whose time isn't known.

    `why`: what differs between what is there and the plan, with the jobs; `wrong`: what is there
    and doesn't hold, a sentence each; `departures`: those from the rules, with the number of their
    cells; `refusal`: why `run` would refuse the plan, or "".
    """

    experiment: str
    plan: str
    nodes: int
    steps: tuple[StepCost, ...]
    jobs: int
    due: int
    seconds: float
    gigabytes: float
    why: tuple[str, ...]
    wrong: tuple[str, ...]
    cells: tuple[PlannedCell, ...]
    departures: dict[str, int]
    refusal: str


def declare(parser: Parser) -> None:
    """The plan, and how it is printed."""
    plan_arguments(parser)
    shown = parser.add_mutually_exclusive_group()
    json_argument(shown, "the plan's steps, costs and cells")
    shown.add_argument("--graph", action="store_true", help="draw the steps, in Mermaid")
    shown.add_argument(
        "--script", action="store_true", help="print the command of every job, as a shell script"
    )


def command(given: argparse.Namespace) -> int:
    """Exit status 0; nothing is run."""
    path = frozen_plan(ROOT, given.overrides, given.site)
    if given.graph:
        print(flowchart(load(path)))
        return 0
    if given.script:
        plan = load(path)
        print(script(plan, path.relative_to(ROOT), due(plan, ROOT), ROOT))
        return 0
    typed = as_typed(given.overrides, given.site)
    found = previewed(path, ROOT, typed)
    print(found.model_dump_json(indent=1) if given.json else rendered(found))
    return 0


def previewed(path: Path, root: Path, typed: Sequence[str] = ()) -> Preview:
    """`typed`: the overrides, for the commands that fix what isn't valid."""
    asked = Asked(path, load(path), root, typed)
    plan, wrong = asked.plan, Wrong.of(asked)
    missing = missing_here(plan)
    raw = json.loads(path.read_text(encoding="utf-8"))
    where = wheres(plan, standings(raw, root, missing), os.environ)
    reasons = due(plan, root)
    if wrong.results:  # no tree is made with them
        waiting = {job.output for job in plan.jobs if job.step in WAITING}
        reasons = {output: why for output, why in reasons.items() if output not in waiting}
    facts, nodes = facts_of(plan.jobs), {r.system: r.nodes for r in plan.requirements}
    steps, total_s, gigabytes = [], 0.0, 0.0
    for step in dict.fromkeys(job.step for job in plan.jobs):
        jobs = [job for job in plan.jobs if job.step == step]
        to_run = [job for job in jobs if job.output in reasons]
        costs = [
            cost(job, facts[job.output], nodes.get(job.key.split("/")[0], 1), root)
            for job in to_run
        ]
        known = [c.seconds for c in costs if c.seconds is not None]
        total_s += sum(known)
        gigabytes += sum(c.gigabytes for c in costs)
        found = Counter(_in_table(reasons[job.output]) for job in to_run)
        found += Counter(wrong.of_job[job.output] for job in jobs if job.output in wrong.of_job)
        steps.append(
            StepCost(
                step=step,
                jobs=len(jobs),
                due=len(to_run),
                why=dict(found),
                waits=wrong.results and step in WAITING,
                seconds=sum(known) if known or not costs else None,
                unknown=len(costs) - len(known),
                gigabytes=sum(c.gigabytes for c in costs),
                basis=tuple(dict.fromkeys(c.basis for c in costs if c.basis)),
            )
        )
    return Preview(
        experiment=plan.experiment,
        plan=path.stem,
        nodes=max(nodes.values()),
        steps=tuple(steps),
        jobs=len(plan.jobs),
        due=len(reasons),
        seconds=total_s,
        gigabytes=gigabytes,
        why=tuple(told(plan, reasons)),
        wrong=tuple(wrong.lines),
        cells=tuple(
            PlannedCell(
                key=cell.key,
                benchmark=cell.benchmark,
                division=cell.division,
                submitted_as=tuple(package.name for package in cell.packages),
                where=where[cell.key][0],
                says=where[cell.key][1],
            )
            for cell in _described(plan)
        ),
        departures=dict(Counter(d for cell in _described(plan) for d in cell.departures)),
        refusal=refusal(path, root, missing) or "",
    )


def rendered(found: Preview) -> str:
    """The plan as a table, one line per step, with departures from the rules below it."""
    rows = [
        [one.step, one.jobs, one.due, _why(one), _about(one), _size(one.gigabytes)]
        for one in found.steps
    ]
    headers = ["step", "jobs", "to run", "why", "about", "disk"]
    table = tabulate(rows, headers=headers, tablefmt="simple")
    title = f"experiment {found.experiment}, plan {found.plan}"
    refused = [f"run would refuse: {found.refusal}"] if found.refusal else []
    said = [*_bases(found), *found.why, *found.wrong, *_cells(found), *_notes(found)]
    return "\n".join([title, table, _total(found), *said, *refused])


def wheres(
    plan: Plan, found: Sequence[Standing], environment: Mapping[str, str]
) -> dict[str, tuple[CellWhere, str]]:
    """Where each cell can be run, and a phrase that says it with what is missing."""
    jobs = {job.output: job for job in plan.jobs}
    nodes = {one.system: one.nodes for one in plan.requirements}
    settings = load_settings()
    said: dict[str, tuple[CellWhere, str]] = {}
    for one in found:
        due = [jobs[output] for output in one.due]
        brings = [f"{reason} (step {step})" for step, reason in one.brings]
        brings += _tokens(due, settings, environment)
        count = nodes[one.system]
        where = "a node" if count == 1 else f"{count} nodes, each"
        if one.never:
            reasons = "; ".join(f"{reason} (step {step})" for step, reason in one.never)
            said[one.key] = "never", f"can't be executed: {reasons}"
        elif brings:
            then = f"; then it runs on {where} with {one.wants}" if one.wants else ""
            said[one.key] = "brings", f"needs something that you bring: {'; '.join(brings)}{then}"
        elif one.wants and due and (one.machine or count > 1 or plan.scheduler.name != "local"):
            said[one.key] = "elsewhere", f"runs on {where} with {one.wants}"
        else:
            said[one.key] = "here", "runs here" if due else "measured"
    return said


def _tokens(
    due: Sequence[Job], settings: Settings, environment: Mapping[str, str]
) -> Iterator[str]:
    """Gated repositories of the hub itself that no token is at hand for; a mirror asks for none."""
    for repository in gated(due, settings):
        hub = repository.endpoint.rstrip("/") == HUB
        if hub and not token(repository.token, environment)[0]:
            yield (
                f"{repository.name} is gated: accept its licence with an account of "
                "huggingface.co and set HF_TOKEN, or fetch.token to where its token is"
            )


HUB = "https://huggingface.co"


def _why(one: StepCost) -> str:
    reasons = ", ".join(f"{count}× {reason}" for reason, count in one.why.items())
    return reasons or ("waits for valid results" if one.waits else "holds")


def _about(one: StepCost) -> str:
    if one.seconds is None:
        return "not known"
    return _duration(one.seconds) + (f", {one.unknown} not known" if one.unknown else "")


def _size(gigabytes: float) -> str:
    return "" if gigabytes < 0.05 else f"{gigabytes:,.1f} GB"


def _bases(found: Preview) -> list[str]:
    """What the estimates of a step follow from, where nobody has measured it."""
    lines = [f"  {one.step}: {basis}" for one in found.steps for basis in one.basis]
    return ["estimated from:", *lines] if lines else []


def _total(found: Preview) -> str:
    if not found.due and found.wrong:
        return "nothing to run, but not everything holds"
    if not found.due:
        return f"nothing to do: all {found.jobs} jobs hold"
    spent = _duration(found.seconds) + (" of machine time" if found.nodes > 1 else "")
    total = f"{found.due} of {found.jobs} jobs would run: about {spent} "
    total += f"and {found.gigabytes:.1f} GB of disk"
    unknown = [f"{one.unknown} of {one.step}" for one in found.steps if one.unknown]
    if unknown:
        total += f", without {', '.join(unknown)}, whose time isn't known"
    return total


WAITING = ("submission", "provenance")
"""Steps that no result which isn't valid gets to."""


@dataclass(frozen=True)
class Wrong:
    """What is there and isn't valid: by a job's output, and in lines with what fixes it.

    `results`: whether a measured result is among it.
    """

    of_job: Mapping[str, str]
    lines: Sequence[str]
    results: bool

    @classmethod
    def of(cls, asked: Asked) -> "Wrong":
        bad = [cell for cell in asked.cells() if cell.state in ("invalid", "damaged")]
        damaged = {one.job.output: "damaged" for one in troubles(asked.plan, asked.root)}
        invalid = {p.check: "not valid" for c in bad for p in c.parts if p.state == "invalid"}
        return cls(damaged | invalid, [*lines(bad, asked), *broken(asked)], bool(bad))


def _cells(found: Preview) -> list[str]:
    """One line per cell: its path, division and, if others, its names in the tree."""
    lines = [f"{len(found.cells)} cell{'s' if len(found.cells) > 1 else ''}:"]
    for cell in found.cells:
        names = " and ".join(cell.submitted_as)
        packed = "" if names == cell.benchmark else f", submitted as {names}"
        lines.append(f"  {cell.key} ({cell.division}){packed}")
    if any(cell.where != "here" for cell in found.cells):
        lines.append("where they run:")
        lines += [f"  {cell.key}: {cell.says}" for cell in found.cells]
    return lines


def _in_table(reason: Reason) -> str:
    """What differs stands below the table, with its jobs."""
    if reason.missing:
        return reason.words
    return "an input is made again" if reason.derived else "changed"


def _described(plan: Plan) -> tuple[Cell, ...]:
    return described(plan).cells


def _notes(found: Preview) -> list[str]:
    if not found.departures:
        return ["no departure from the rules of the round"]
    lines = ["departures from the rules (the result may not be submitted):"]
    return lines + [
        f"  {text} ({count} of {len(found.cells)} cells)"
        for text, count in found.departures.items()
    ]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
