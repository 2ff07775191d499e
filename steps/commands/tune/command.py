"""`./reproduce tune scenario=Server [overrides] [--budget 45m] [--guess QPS] [--settings]`.

Makes what the runs need, searches, and puts the VALID run where `./reproduce` looks for it. The
search runs in the analysis environment, each probe in the engine's. For Offline it says which rate
to ask LoadGen for, and how long a run is worth its time. `--settings` searches the engines'
settings too, before the rate.
"""

import argparse
import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from steps import ROOT
from steps.base import earlier
from steps.base.arguments import Parser, plan_arguments
from steps.base.errors import UserError
from steps.base.record import Manifest, canonical_json, write_atomically
from steps.commands.tune import offline
from steps.commands.tune.config import load as settings
from steps.commands.tune.known import first_rate
from steps.commands.tune.request import (
    BAND,
    OUT_OF_BUDGET,
    REQUEST,
    Request,
    Result,
    identity,
    request_in,
    result_of,
)
from steps.commands.tune.settings_request import (
    SettingsRequest,
    best_of,
    configured,
    overrides_of,
    told,
    trials_in,
    with_values,
)
from steps.config.checks import PerformanceCheckConfig
from steps.config.runs import PerformanceRunConfig
from steps.config.scheduler import Local
from steps.machine.environment import restore
from steps.machine.tools import environment_python
from steps.mlperf.loadgen import SAMPLES_FILE
from steps.plan.code import code_digest, sources
from steps.plan.frozen import frozen_plan, snakemake
from steps.plan.older import refuse_older
from steps.plan.plan import Job, Plan, load
from steps.plan.unsupported import refusal
from steps.report.frontier import FRONTIER
from steps.schedule.looking import missing_here
from steps.schedule.supervisor import lock, supervise

UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Aim:
    """A cell whose rate is searched, in the plan of these overrides."""

    plan: Plan
    job: Job
    overrides: tuple[str, ...]
    guess: float | None
    budget_s: float | None


def declare(parser: Parser) -> None:
    """The plan, and how long and from where it is searched."""
    parser.description = __doc__.partition("\n\n")[2]
    plan_arguments(parser)
    parser.add_argument("--budget", type=_duration, metavar="45m", help="of one scenario's search")
    parser.add_argument(
        "--deadline", type=_duration, metavar="3h", help="of all scenarios, best gain first"
    )
    parser.add_argument("--guess", type=float, metavar="QPS", help="where to begin")
    parser.add_argument(
        "--settings", action="store_true", help="try what conf/tune.yaml names of the engine first"
    )


def command(given: argparse.Namespace) -> int:
    """Exit status 0: every scenario has its rate; 1: one has none. Raises UserError."""
    overrides, site = given.overrides, given.site
    if given.guess is not None and not given.guess > 0:
        raise UserError(f"--guess {given.guess} is no rate above 0 queries a second")
    if given.budget and given.deadline:
        raise UserError("--budget is for each scenario, --deadline for all; give one of them")
    path = frozen_plan(ROOT, overrides, site)
    refuse_older(path, ROOT)
    plan = load(path)
    if reason := refusal(path, ROOT, missing_here(plan)):
        raise UserError(reason)
    os.chdir(ROOT)
    lock(ROOT)
    if not isinstance(plan.scheduler, Local):
        raise UserError(
            f"tune measures on the machine that it runs on, not through {plan.scheduler.name}: "
            "start it on a node of its own, with scheduler=local"
        )
    runs = [job for job in plan.jobs if job.step == "performance_run"]
    jobs = [job for job in runs if _searchable(job)]
    for job in runs:
        if job not in jobs:
            _offline(path, job)
    if not jobs:
        return 0
    _prepare(path, jobs)
    budget_s = given.deadline or given.budget
    python = environment_python(ROOT, "analysis")
    aims = [Aim(plan, job, tuple(overrides), given.guess, budget_s) for job in jobs]
    if given.settings:
        aims = _with_settings(aims, python, site, shared=given.deadline is not None)
    searches = [(aim, request_of(aim.plan, aim.job, aim.guess, aim.budget_s)) for aim in aims]
    status = 0
    for group in [searches] if given.deadline else [[search] for search in searches]:
        due = [request for _, request in group if not answered(request)]
        if due:
            paths = [f"{request.home}/{REQUEST}" for request in due]
            words = [str(python), "-m", "steps.commands.tune.main", *paths]
            status = max(status, _search(words, plan))
        for aim, request in group:
            found = result_of(ROOT / request.home)
            if found is not None:
                taken = adopt(ROOT / request.home, found, aim.overrides, site)
                _report(request, found, taken, site)
    return status


def _search(words: list[str], plan: Plan) -> int:
    """Its exit status. Raises SystemExit with it if a signal ended it or us."""
    status = supervise(words, ROOT, plan.stop_limit_s, name="the search")
    if status >= 128:
        raise SystemExit(status)
    return status


def _duration(text: str) -> float:
    """The seconds in a text such as 90s, 45m, 1.5h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} isn't a duration such as 90s, 45m, 1.5h")
    return float(found[1]) * UNITS[found[2]]


def _searchable(job: Job) -> bool:
    return bool(json.loads(job.config)["scenario"] != "Offline")


def _offline(path: Path, job: Job) -> None:
    """Report what the plan's Offline run shows about its own length; make the run if absent."""
    if supervise([*snakemake(path), job.output], ROOT, load(path).stop_limit_s):
        raise UserError("the Offline run can't be made; see the messages above")
    config = PerformanceRunConfig.model_validate_json(job.config)
    loadgen, rules = config.loadgen, config.rules
    duration_s = loadgen.least_ms(rules) / 1000
    count = loadgen.sample_count(rules)
    found = offline.read((ROOT / job.output).with_name(SAMPLES_FILE))
    print(f"{job.key}:")
    print(offline.advice(found, duration_s, count, settings().offline_share))


def _with_settings(
    aims: Sequence[Aim], python: Path, site: Path | None, *, shared: bool
) -> list[Aim]:
    """The requests with each one's best settings, and the rest of its or the shared time."""
    tried = []
    for aim in aims:
        part = settings().settings.budget_share / (len(aims) if shared else 1)
        tried.append(_tried(aim, python, site, aim.budget_s and part * aim.budget_s))
    together_s = sum(spent_s for _, spent_s in tried)
    return [
        replace(aim, budget_s=max(aim.budget_s - (together_s if shared else spent_s), 1.0))
        if aim.budget_s
        else aim
        for aim, spent_s in tried
    ]


def _tried(aim: Aim, python: Path, site: Path | None, budget_s: float | None) -> tuple[Aim, float]:
    """The request with the best settings, and the time in s spent on all others."""
    search, planned = settings().settings, aim.job.config
    kind = json.loads(planned)["engine"]["kind"]
    space = search.spaces.get(kind)
    if space is None or not configured(planned, space):
        raise UserError(
            f"{aim.job.key}: conf/tune.yaml names no setting to try of its {kind} engine; add it "
            "to settings.spaces, or leave out --settings"
        )
    base = request_of(aim.plan, aim.job, aim.guess, None)
    context = context_of(aim.job)
    how = search.model_dump(mode="json", include={"at_random", "seed"})
    below = str(Path(base.home).parent)
    name = identity(planned, [*context, space.model_dump(mode="json"), how])
    home = f"{below}/settings-{name}"
    request = SettingsRequest(
        base=base,
        context=tuple(context),
        below=below,
        space=space,
        search=search,
        budget_s=budget_s,
    )
    write_atomically(ROOT / home / REQUEST, request.model_dump_json(indent=1) + "\n")
    words = [str(python), "-m", "steps.commands.tune.settings", f"{home}/{REQUEST}"]
    if _search(words, aim.plan):
        raise UserError("the trials of settings didn't end; the same command continues them")
    trials = trials_in(ROOT / home)
    best = best_of(trials)
    print(f"{aim.job.key}: of {len(trials)} trials the best is {best.line()}; {home}/trials.json")
    spent_s = sum(trial.spent_s for trial in trials) - best.spent_s
    named = _with(aim.overrides, overrides_of(planned, best.values), _scenarios(aim.plan))
    path = frozen_plan(ROOT, named, site)
    plan = load(path)
    job = next(job for job in plan.jobs if (job.step, job.key) == ("performance_run", aim.job.key))
    if job.config != with_values(planned, best.values):
        raise UserError(
            f"{' '.join(named)} makes other settings than {told(best.values)} at {aim.job.key}; "
            "leave out what you gave of them"
        )
    _prepare(path, [job])
    return Aim(plan, job, tuple(named), None, aim.budget_s), spent_s


def _with(overrides: Sequence[str], found: Sequence[str], scenarios: set[str]) -> list[str]:
    """The `overrides` that the found ones don't replace, and `found`, each set.SCENARIO.NAME=VALUE.

    One is replaced that sets the same for this scenario, or for all `scenarios` of the plan if
    there is no other. What was set for fewer cells (set.fp8.Server.…) is found for those.
    """
    kept, words = list(overrides), []
    for text in found:
        place, _, value = text.partition("=")
        scenario, name = place.split(".")[1], place.rpartition(".")[2]
        same = [
            given
            for given in kept
            if name in _key(given) and (scenarios == {scenario} or scenario in _key(given))
        ]
        kept = [given for given in kept if given not in same]
        places = [".".join(_key(given)) for given in same if given.startswith("set.")]
        words.append(f"{max(places, key=len, default=place)}={value}")
    return [*kept, *words]


def _key(override: str) -> list[str]:
    return override.lstrip("+").partition("=")[0].split(".")


def _scenarios(plan: Plan) -> set[str]:
    return {str(json.loads(j.config)["scenario"]) for j in plan.jobs if j.step == "performance_run"}


def _prepare(path: Path, jobs: Sequence[Job]) -> None:
    """Make weights, prompts and environments of these jobs, by the same rules as for a run."""
    needed = sorted({source for job in jobs for source in job.inputs.values()})
    plan = load(path)
    if supervise([*snakemake(path), *needed], ROOT, plan.stop_limit_s):
        raise UserError("what the runs need can't be made; see the messages above")
    restore(plan, {job.output for job in jobs}, ROOT)


def request_of(plan: Plan, job: Job, guess: float | None, budget_s: float | None) -> Request:
    """Its directory is named by everything but the rate that a measurement depends on. So another
    guess or another budget finds earlier measurements. A search that was begun continues from its
    first guess, unless another one is given.
    """
    check = next(
        json.loads(other.config)
        for other in plan.jobs
        if other.step == "performance_check" and other.key == job.key
    )
    home = f"results/{plan.experiment}/tune/{job.key}/{identity(job.config, context_of(job))}"
    begun = request_in(ROOT / home)
    if guess is not None:
        begin, why = guess, "--guess"
    elif begun is not None:
        begin, why = begun.guess, begun.guessed_from
    else:
        begin, why = first_rate(ROOT, plan, job)
    request = Request(
        cell=job.key,
        planned=job.config,
        check=PerformanceCheckConfig.model_validate_json(canonical_json(check)),
        inputs=job.inputs,
        launcher=job.launcher,
        code=tuple(sources(job.step, ROOT)),
        container=job.container,
        guess=begin,
        guessed_from=why,
        budget_s=budget_s,
        answers=_answers(plan, job),
        home=home,
        settings=settings().search,
    )
    write_atomically(ROOT / home / REQUEST, request.model_dump_json(indent=1) + "\n")
    return request


def context_of(job: Job) -> list[object]:
    """What a measurement depends on besides the run's configuration, as JSON values."""
    digests = {role: Manifest.read(ROOT / path).inputs for role, path in job.inputs.items()}
    search = settings().search.model_dump(mode="json")
    return [job.inputs, digests, code_digest(job.step, ROOT), search]


def answered(request: Request) -> bool:
    """Whether an earlier search has ended for good: not for lack of time that is now available."""
    found = result_of(ROOT / request.home)
    if found is None:
        return False
    if found.budget_s is None or found.stopped != OUT_OF_BUDGET:
        return True
    return request.budget_s is not None and request.budget_s <= found.budget_s


def _answers(plan: Plan, job: Job) -> str | None:
    """samples.csv of an accuracy run on the same weights and prompts, in any scenario."""
    for other in plan.jobs:
        path = ROOT / other.output
        if other.step != "accuracy_run" or not path.is_file():
            continue
        if all(other.inputs[role] == job.inputs[role] for role in ("model", "dataset")):
            return str(path.with_name(SAMPLES_FILE).relative_to(ROOT))
    return None


def adopt(
    home: Path, found: Result, overrides: Sequence[str], site: Path | None
) -> list[str] | None:
    """Put the run where the plan with the found rate expects it. Returns that plan's overrides.

    The frontier of the search in `home` goes beside it, for the report.

    Its record says what it was made by, and that it is of that plan. None if the plan with the
    rate's override doesn't have this run. Raises UserError if the plan can no longer be made.
    """
    rate = f"set.{found.scenario}.target_qps={found.target_qps}"
    before = load(frozen_plan(ROOT, list(overrides), site))
    named = _with(overrides, [rate], _scenarios(before))
    path = frozen_plan(ROOT, named, site)
    job = next(
        job for job in load(path).jobs if (job.step, job.key) == ("performance_run", found.cell)
    )
    source = ROOT / found.run
    if canonical_json(Manifest.read(source / "manifest.json").config) != job.config:
        return None
    _copy(source, (ROOT / job.output).parent, home / FRONTIER)
    return named


def _copy(source: Path, destination: Path, beside_it: Path) -> None:
    """Copy it as a whole, with one more file; an existing run joins the earlier ones."""
    beside = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, beside)
    if beside_it.is_file():
        shutil.copy(beside_it, beside)
    if destination.exists():
        earlier.set_aside(destination, "a search for target_qps ended with another run")
    beside.rename(destination)


def _report(
    request: Request, found: Result, overrides: Sequence[str] | None, site: Path | None
) -> None:
    print(
        f"{found.cell}: target_qps {found.target_qps:g} is VALID; the limit is expected at "
        f"{found.limit:.4g} ± {100 * BAND * found.deviation:.1f} % (90 %), {found.metric} binds; "
        f"{found.stopped}"
    )
    print(
        f"  {found.probes} probes, {found.runs} of them of the run's length, "
        f"{found.measured_s:,.0f} s measured, {found.start_s:,.0f} s of starts; "
        f"{request.home}/frontier.html"
    )
    if overrides is None:
        print(f"  the run is in {found.run}; no override names this system's rate")
    else:
        words = ["./reproduce", *overrides, *(["--site", str(site)] if site else [])]
        print(f"  {shlex.join(words)}   # takes this run as it is")
