"""`./reproduce plan`: what would run, why, and what it costs. Runs nothing."""

import subprocess
from collections import Counter
from pathlib import Path

from tabulate import tabulate

from steps import schema
from steps.errors import UserError
from steps.estimate import cost
from steps.plan import Plan, load

SUMMARY_LIMIT_S = 300.0


def preview(path: Path, root: Path, snakemake: list[str]) -> str:
    """The plan as a table, one line per step, with departures from the rules below it."""
    plan = load(path)
    reasons = pending(plan, root, snakemake)
    datasets = [job for job in plan.jobs if job.step == "dataset"]
    dataset = schema.DatasetConfig.model_validate_json(datasets[0].config)
    rows, seconds, gigabytes = [], 0.0, 0.0
    for step in dict.fromkeys(job.step for job in plan.jobs):
        jobs = [job for job in plan.jobs if job.step == step]
        due = [job for job in jobs if job.output in reasons]
        costs = [cost(job, dataset, root) for job in due]
        seconds += sum(c.seconds for c in costs)
        gigabytes += sum(c.gigabytes for c in costs)
        counts = Counter(reasons[job.output] for job in due)
        why = ", ".join(f"{count}× {reason}" for reason, count in counts.items()) or "holds"
        rows.append([step, len(jobs), len(due), why, _duration(sum(c.seconds for c in costs))])
    table = tabulate(rows, headers=["step", "jobs", "to run", "why", "about"], tablefmt="simple")
    total = f"{len(reasons)} of {len(plan.jobs)} jobs would run: "
    total += f"about {_duration(seconds)} and {gigabytes:.1f} GB of disk"
    if not reasons:
        total = f"nothing to do: all {len(plan.jobs)} jobs hold"
    return "\n".join(
        [f"experiment {plan.experiment}, plan {path.stem}", table, total, *_notes(plan)]
    )


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


def _notes(plan: Plan) -> list[str]:
    report = next(job for job in plan.jobs if job.step == "report")
    cells = schema.ReportConfig.model_validate_json(report.config).cells
    found = Counter(departure for cell in cells for departure in cell.departures)
    if not found:
        return ["no departure from the rules of the round"]
    lines = ["departures from the rules (the result may not be submitted):"]
    return lines + [f"  {text} ({count} of {len(cells)} cells)" for text, count in found.items()]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
