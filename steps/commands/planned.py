"""Commands on a plan: `run`, `again`, `status`, `report` and `manifests`.

Heavy modules are imported where they are used (steps/plan/frozen.py says why).
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
from steps.plan import revisions
from steps.plan.frozen import RUNS_NOTHING, frozen_plan
from steps.schedule import supervisor

if TYPE_CHECKING:
    from steps.commands import results
    from steps.plan.plan import Plan


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
    from steps.commands import measuring
    from steps.plan.older import refuse_older
    from steps.plan.unsupported import left, refusal
    from steps.schedule.looking import missing_of

    refuse_older(path, ROOT)
    missing = missing_of(asked.plan)
    if reason := refusal(path, ROOT, missing):
        raise UserError(reason)
    _require_clocks(asked.plan)
    _say_what_is_seen_late(asked.plan)
    _require_true(replace(asked, left=left(path, ROOT, missing)))
    supervisor.lock(ROOT)
    if (open_ended := revisions.unresolved(path)) and not _runs_nothing(given):
        from steps.prepare.fetch.revisions import resolve

        for name, commit in resolve(open_ended, ROOT).items():
            print(f"{name}: {revisions.BRANCH} is {commit}, kept in {revisions.FILE}")
        path = frozen_plan(ROOT, given.overrides, given.site)
        asked = results.Asked.of(path, ROOT, as_typed(given.overrides, given.site))
        refuse_older(path, ROOT)
    asked = replace(asked, left=left(path, ROOT, missing))
    os.chdir(ROOT)
    if given.command == "again":
        return measuring.again(asked, words)
    return measuring.run(asked, given.passed_on)


def _require_clocks(plan: "Plan") -> None:
    """Raises UserError where the site allows clocks to be set and nothing can set them."""
    from steps.schedule.launching import unclocked

    if said := next(filter(None, (unclocked(job, plan) for job in plan.jobs)), ""):
        raise UserError(said)


def _say_what_is_seen_late(plan: "Plan") -> None:
    from steps.schedule.launching import seen_late

    for said in sorted({seen_late(job) for job in plan.jobs} - {""}):
        print(f"warning: {said}", file=sys.stderr, flush=True)


def _runs_nothing(given: argparse.Namespace) -> bool:
    passed_on = getattr(given, "passed_on", ())
    return any(argument in RUNS_NOTHING for argument in passed_on)


def _published(given: argparse.Namespace) -> bool:
    if given.published and (given.overrides or given.site):
        raise UsageError("report --published is of no plan: leave out overrides and --site")
    if not given.published and (given.round or given.output):
        raise UsageError("--round and --output belong to report --published; add it")
    return bool(given.published)


def _require_true(asked: "results.Asked") -> None:
    """Raises UserError, before anything is measured for it, where a system's description is of
    another machine. Of several nodes, and of those of a scheduler, `describe` on them finds it.
    """
    here = {one.system for one in asked.plan.requirements if one.model and one.nodes == 1}
    here -= {one.system for one in asked.left}
    jobs = [job for job in asked.plan.jobs if job.step == "describe" and job.key in here]
    due = [job for job in jobs if not (asked.root / job.output).exists()]
    if not due or asked.plan.scheduler.name != "local":
        return
    from steps.config.artifacts import DescribeConfig
    from steps.machine.probes.machine import probe
    from steps.run.describe import require_true

    node = probe()
    for job in due:
        require_true(DescribeConfig.model_validate_json(job.config), node)
