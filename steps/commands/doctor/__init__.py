"""`./reproduce doctor`: can this plan start on this machine, and what makes it faster? Reads,
compares and prints commands to type. It never changes a setting.
"""

import argparse
import os
import textwrap
from collections.abc import Iterable
from pathlib import Path

from steps import ROOT
from steps.base.arguments import Parser, json_argument, plan_arguments
from steps.base.strict import Strict
from steps.commands.doctor.checks import Finding, findings, may_start
from steps.commands.doctor.needs import needs
from steps.commands.doctor.nodes import asked
from steps.commands.doctor.settings import load
from steps.commands.doctor.state import state
from steps.plan import capacity
from steps.run.placing.lines import JOB

RESULTS = Path("results")
NAME_WIDTH = 34


def declare(parser: Parser) -> None:
    """The plan, and how findings are printed."""
    plan_arguments(parser)
    json_argument(parser, "the findings")


def command(given: argparse.Namespace) -> int:
    """Exit status: 0 a run can start, 1 it can't."""
    overrides, site = given.overrides, given.site
    from steps.plan.make import made

    settings = load()
    planned = made(ROOT, overrides, site)
    plan, cells = planned.plan, [dict(cell.values) for cell in planned.cells]
    wanted = needs(plan, cells, ROOT, settings, capacity.load())
    found = findings(
        wanted, state(wanted, settings, ROOT / RESULTS, environment=os.environ), settings
    )
    nodes = asked(plan, wanted.clocks, in_job=JOB in os.environ)
    found += nodes.findings
    if given.json:
        print(Answer.of(plan.experiment, wanted.systems, found).model_dump_json(indent=1))
    else:
        there = "on this machine and its nodes" if nodes.findings else "on this machine"
        print(f"plan {plan.experiment} for {', '.join(wanted.systems)}, {there}")
        print("\n".join(filter(None, [report(found), nodes.table])))
    return 0 if may_start(found) else 1


class Answer(Strict):
    """What `--json` prints: whether a run may start, and each finding."""

    experiment: str
    systems: tuple[str, ...]
    may_start: bool
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, experiment: str, systems: Iterable[str], found: list[Finding]) -> "Answer":
        return cls(
            experiment=experiment,
            systems=tuple(systems),
            may_start=may_start(found),
            findings=tuple(found),
        )


def report(found: list[Finding]) -> str:
    """One line per finding with its fix below it, then the answer."""
    lines = []
    for finding in found:
        lines.append(f"  {finding.level:<5} {finding.check:<{NAME_WIDTH}} {finding.says}")
        if finding.fix:
            lines += textwrap.wrap(
                f"fix: {finding.fix}", 100, initial_indent=" " * 8, subsequent_indent=" " * 13
            )
    counts = {level: sum(f.level == level for f in found) for level in ("fail", "warn")}
    answer = "a run may start" if may_start(found) else "a run would fail: fix every line with fail"
    return "\n".join([*lines, f"{counts['fail']} fail, {counts['warn']} warn: {answer}"])
