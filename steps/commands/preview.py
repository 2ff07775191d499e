"""`./reproduce plan`: what would run, why, and its cost. Runs nothing."""

import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from steps.base.errors import UserError
from steps.commands.results import Asked, broken, lines
from steps.config.submission import Cell
from steps.plan.estimate import cost, evaluation_counts
from steps.plan.plan import Plan, load
from steps.plan.states import described, troubles
from steps.plan.unsupported import refusal

SUMMARY_LIMIT_S = 300.0


def preview(path: Path, root: Path, snakemake: list[str], typed: Sequence[str] = ()) -> str:
    """The plan as a table, one line per step, with departures from the rules below it.

    `typed`: the overrides, for the commands that mend what doesn't hold.
    """
    asked = Asked(path, load(path), root, typed)
    plan, wrong = asked.plan, Wrong.of(asked)
    reasons = pending(plan, root, snakemake)
    if wrong.results:  # no tree is made with them
        waiting = {job.output for job in plan.jobs if job.step in WAITING}
        reasons = {output: why for output, why in reasons.items() if output not in waiting}
    counts, nodes = evaluation_counts(plan.jobs), {r.system: r.nodes for r in plan.requirements}
    rows, total_s, gigabytes, unknown = [], 0.0, 0.0, []
    for step in dict.fromkeys(job.step for job in plan.jobs):
        jobs = [job for job in plan.jobs if job.step == step]
        due = [job for job in jobs if job.output in reasons]
        costs = [
            cost(job, counts.get(job.output, 0), nodes.get(job.key.split("/")[0], 1), root)
            for job in due
        ]
        seconds = sum(c.seconds or 0 for c in costs)
        total_s += seconds
        gigabytes += sum(c.gigabytes for c in costs)
        found = Counter(reasons[job.output] for job in due)
        found += Counter(wrong.of_job[job.output] for job in jobs if job.output in wrong.of_job)
        held = "waits for valid results" if wrong.results and step in WAITING else "holds"
        why = ", ".join(f"{count}× {reason}" for reason, count in found.items()) or held
        known = all(c.seconds is not None for c in costs)
        if not known:
            unknown.append(step)
        rows.append([step, len(jobs), len(due), why, _duration(seconds) if known else "not known"])
    table = tabulate(rows, headers=["step", "jobs", "to run", "why", "about"], tablefmt="simple")
    several = max(nodes.values()) > 1
    spent = f"{_duration(total_s)} of machine time" if several else _duration(total_s)
    total = f"{len(reasons)} of {len(plan.jobs)} jobs would run: about {spent} "
    total += f"and {gigabytes:.1f} GB of disk"
    if unknown:
        total += f", without {', '.join(unknown)}, whose cost is unknown"
    if not reasons:
        total = f"nothing to do: all {len(plan.jobs)} jobs hold"
    if not reasons and wrong.lines:
        total = "nothing to run, but not everything holds"
    title = f"experiment {plan.experiment}, plan {path.stem}"
    return "\n".join(
        [title, table, total, *wrong.lines, *_cells(plan), *_notes(plan), *_refusal(path, root)]
    )


WAITING = ("submission", "provenance")
"""Steps that no result which isn't valid gets to."""


@dataclass(frozen=True)
class Wrong:
    """What is there and doesn't hold: by a job's output, and in lines with the mending command.

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


def _cells(plan: Plan) -> list[str]:
    """One line per cell: its path, division and, if others, its names in the tree."""
    cells = _described(plan)
    lines = [f"{len(cells)} cell{'s' if len(cells) > 1 else ''}:"]
    for cell in cells:
        names = " and ".join(package.name for package in cell.packages)
        packed = "" if names == cell.benchmark else f", submitted as {names}"
        lines.append(f"  {cell.key} ({cell.division}){packed}")
    return lines


def _refusal(path: Path, root: Path) -> list[str]:
    reason = refusal(path, root)
    return [f"run would refuse: {reason}"] if reason else []


def pending(plan: Plan, root: Path, snakemake: list[str]) -> dict[str, str]:
    """Outputs that snakemake would make, with its reason. It decides; nothing here guesses."""
    done = subprocess.run(
        [*snakemake, "--summary"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=SUMMARY_LIMIT_S,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"snakemake can't plan this: {last.strip()}")
    header, *lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    outputs = {job.output for job in plan.jobs}
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    return {
        row["output_file"]: _reason(row["status"])
        for row in rows
        if row["output_file"] in outputs and row["plan"] != "no update"
    }


def _reason(status: str) -> str:
    return {"ok": "its inputs are remade", "rule version changed": "rule changed"}.get(
        status, status
    )


def _described(plan: Plan) -> tuple[Cell, ...]:
    return described(plan).cells


def _notes(plan: Plan) -> list[str]:
    cells = _described(plan)
    found = Counter(departure for cell in cells for departure in cell.departures)
    if not found:
        return ["no departure from the rules of the round"]
    lines = ["departures from the rules (the result may not be submitted):"]
    return lines + [f"  {text} ({count} of {len(cells)} cells)" for text, count in found.items()]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
