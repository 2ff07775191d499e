"""`./reproduce doctor`: can this plan start on this machine, and what makes it faster? Reads,
compares and prints commands to type. It never changes a setting.
"""

import os
import textwrap
from pathlib import Path

from steps import ROOT
from steps.base.errors import UserError
from steps.commands.doctor.checks import Finding, findings, may_start
from steps.commands.doctor.needs import needs
from steps.commands.doctor.settings import load
from steps.commands.doctor.state import state
from steps.plan import capacity
from steps.plan.frozen import site_file

RESULTS = Path("results")
NAME_WIDTH = 34


def command(arguments: list[str]) -> int:
    """Takes a plan's overrides and `--site`. Exit status: 0 a run can start, 1 it can't."""
    overrides, site = site_file(arguments)
    options = [text for text in overrides if text.startswith("-")]
    if options:
        raise UserError(f"doctor takes overrides like plan does, not {' '.join(options)!r}")
    from steps.config.compose import compose
    from steps.plan.planner import Planner

    settings = load()
    experiment, cells = compose(ROOT / "conf", overrides, site)
    plan = Planner(ROOT, experiment).plan(cells, overrides)
    wanted = needs(plan, cells, ROOT, settings, capacity.load())
    found = findings(
        wanted, state(wanted, settings, ROOT / RESULTS, environment=os.environ), settings
    )
    print(f"plan {plan.experiment} for {', '.join(wanted.systems)}, on this machine")
    print(report(found))
    return 0 if may_start(found) else 1


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
