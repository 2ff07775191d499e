"""Commands on a plan: `run`, `again`, `status`, `report` and `manifests`.

Heavy modules are imported where they are used (steps/plan/frozen.py says why).
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from steps import ROOT
from steps.base.arguments import (
    Parser,
    UsageError,
    as_typed,
    is_override,
    json_argument,
    plan_arguments,
    site_argument,
)
from steps.base.errors import UserError
from steps.plan.frozen import frozen_plan
from steps.schedule import supervisor


def declare(parser: Parser) -> None:
    """What each of these commands takes."""
    if parser.name == "again":
        parser.add_argument(
            "words",
            nargs="*",
            metavar="CELL|RESULT|OVERRIDE",
            help="cells (Server, bf16/Server), results (performance, accuracy, TEST06), overrides; "
            "without cells and results: whatever is not valid",
        )
        site_argument(parser)
        return
    plan_arguments(parser)
    if parser.name == "run":
        parser.usage = f"{parser.prog} [OVERRIDE ...] [--site FILE] [-- ARGUMENT OF SNAKEMAKE ...]"
    if parser.name == "status":
        json_argument(parser, "the cells and what they wait for")
    if parser.name == "report":
        parser.add_argument(
            "--published", action="store_true", help="of AMD's published results, without a plan"
        )
        parser.add_argument("--round", help="with --published; default: the last that has a table")
        parser.add_argument(
            "--output",
            type=Path,
            metavar="DIRECTORY",
            help="with --published; default: results/published/ROUND/report",
        )


def command(given: argparse.Namespace) -> int:
    """Exit status 0 if what was asked for is done and holds, 1 if not."""
    if given.command == "report" and _published(given):
        from steps.report.command import command as published

        return published(given)
    words: list[str] = []
    if given.command == "again":
        words = [word for word in given.words if not is_override(word)]
        given.overrides = [word for word in given.words if is_override(word)]
    path = frozen_plan(ROOT, given.overrides, given.site)
    if given.command == "manifests":
        from steps.schedule.kubernetes.run import show

        return show(path, ROOT)
    from steps.commands import results

    asked = results.Asked.of(path, ROOT, as_typed(given.overrides, given.site))
    if given.command == "report":
        return results.report(asked)
    if given.command == "status":
        return results.status(asked, as_json=given.json)
    from steps.machine.look import Look
    from steps.plan.older import refuse_older
    from steps.plan.unsupported import left, refusal

    refuse_older(path, ROOT)
    look = Look()
    if reason := refusal(path, ROOT, look.missing):
        raise UserError(reason)
    asked = replace(asked, left=left(path, ROOT, look.missing))
    supervisor.lock(ROOT)
    os.chdir(ROOT)
    if given.command == "again":
        return results.again(asked, words)
    return results.run(asked, given.passed_on)


def _published(given: argparse.Namespace) -> bool:
    if given.published and (given.overrides or given.site):
        raise UsageError("report --published is of no plan: leave out overrides and --site")
    if not given.published and (given.round or given.output):
        raise UsageError("--round and --output belong to report --published; add it")
    return bool(given.published)
