"""Settings of an engine, one set after another: `python -m steps.commands.tune.settings REQUEST`.

Each trial starts the engine with its settings and explores as a search of the rate would, by the
same probes in the same directory, so the search with the best settings finds them made. Its score
is the rate at which half of the runs are expected to be valid: throughput and latencies in one
number. What to try next is Optuna's choice. Trials are kept; given the same results again, it makes
the same choices, so a killed search repeats none.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, IntDistribution

from steps import ROOT
from steps.base.errors import UserError
from steps.base.record import write_atomically
from steps.commands.tune.config import SettingsSearch, Space
from steps.commands.tune.main import Task, guarded, say
from steps.commands.tune.measure import Measurement
from steps.commands.tune.request import REQUEST, identity
from steps.commands.tune.settings_request import (
    TRIALS,
    Appraisal,
    SettingsRequest,
    Trial,
    Trials,
    configured,
    told,
    trials_in,
    with_values,
)

MOST_ASKED = 20
"""Optuna's proposals per trial at most: it may propose settings that were tried, or that exclude
each other.
"""

Appraise = Callable[[Mapping[str, int], float, float], Appraisal]
"""Explores settings, from a first rate, given the limit of the best others."""


def trials(
    search: SettingsSearch,
    space: Space,
    begin: Mapping[str, int],
    guess: float,
    appraise: Appraise,
    budget_s: float | None = None,
) -> Iterator[Trial]:
    """Yields trials as they end. The first is of the configured settings, `begin`, from the first
    guess. `budget_s` bounds the time of all others.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    grid = {name: sorted({*space.values[name], value}) for name, value in begin.items()}
    places: dict[str, BaseDistribution] = {
        name: IntDistribution(0, len(values) - 1) for name, values in grid.items()
    }
    sampler = optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=search.at_random)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({name: grid[name].index(value) for name, value in begin.items()})
    done: dict[tuple[int, ...], Trial] = {}
    for _ in range(MOST_ASKED * search.trials):
        asked = study.ask(places)
        values = {name: grid[name][asked.params[name]] for name in grid}
        key = tuple(values.values())
        if key not in done:
            if done and not space.allows(values):
                study.tell(asked, 0.0)
                continue
            spent_s, longest_s = (
                of([t.spent_s for t in done.values()] or [0.0]) for of in (sum, max)
            )
            if len(done) == search.trials or (budget_s and done and spent_s + longest_s > budget_s):
                return
            beat = max((trial.limit for trial in done.values()), default=0.0)
            found = appraise(values, beat or guess, beat)
            done[key] = Trial(number=len(done) + 1, values=values, **found.model_dump())
            yield done[key]
        study.tell(asked, done[key].limit)


def appraised(
    request: SettingsRequest, values: Mapping[str, int], guess: float, beat: float
) -> Appraisal:
    """Explores by real probes. An engine that doesn't start with these settings is a result too."""
    base = request.base
    planned = with_values(base.planned, values)
    home = f"{request.below}/{identity(planned, request.context)}"
    whence = base.guessed_from if guess == base.guess else "the best settings so far"
    begin = {"guess": guess, "guessed_from": whence}
    asked = base.model_copy(update={"planned": planned, "home": home, **begin})
    write_atomically(ROOT / home / REQUEST, asked.model_dump_json(indent=1) + "\n")
    limit, deviation, why = 0.0, 0.0, ""
    task = Task(asked)
    steps = task.search.appraise(beat)
    try:
        probe = next(steps)
        while True:
            measured: Measurement = task.journal.measure(probe)
            say(f"  {task.line(measured)}")
            probe = steps.send(measured)
    except StopIteration as stop:
        limit, deviation = stop.value.limit, stop.value.deviation
    except UserError as error:
        why = str(error)
    return Appraisal(
        limit=limit,
        deviation=deviation,
        why=why,
        probes=len(task.search.probes),
        spent_s=task.search.spent_s,
        home=home,
    )


def main(path: str) -> int:
    """Writes the trials, including an earlier call's; returns 0."""
    request = SettingsRequest.model_validate_json((ROOT / path).read_text(encoding="utf-8"))
    home = ROOT / Path(path).parent
    before = {tuple(trial.values.items()): trial for trial in trials_in(home)}
    kept: list[Trial] = []

    def appraise(values: Mapping[str, int], guess: float, beat: float) -> Appraisal:
        made = before.get(tuple(values.items()))
        if made is not None:
            return Appraisal.model_validate(made.model_dump(exclude={"number", "values"}))
        say(f"{request.base.cell}: trial {len(kept) + 1}, {told(values)}")
        return appraised(request, values, guess, beat)

    begin = configured(request.base.planned, request.space)
    budget_s = request.budget_s
    for trial in trials(
        request.search, request.space, begin, request.base.guess, appraise, budget_s
    ):
        kept.append(trial)
        if len(kept) <= len(before):
            continue
        write_atomically(home / TRIALS, Trials(trials=tuple(kept)).model_dump_json(indent=1) + "\n")
        say(f"{request.base.cell}: trial {trial.number}, {trial.line()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded(lambda: main(sys.argv[1])))
