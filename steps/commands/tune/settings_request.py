"""What `tune --settings` hands to the process that tries settings, and what that leaves."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from steps.base.errors import UserError, explain
from steps.base.record import canonical_json
from steps.base.strict import NotNegative, Positive, PositiveNumber, Strict
from steps.commands.tune.config import SettingsSearch, Space
from steps.commands.tune.request import Request

TRIALS = "trials.json"
ENVIRONMENT = "environment"


class SettingsRequest(Strict):
    """`base`: the search of the rate with what is configured. `context` as identity() takes it, in
    JSON; `below`: the directory that holds the directories of all searches of the cell."""

    base: Request
    context: tuple[object, ...]
    below: str
    space: Space
    search: SettingsSearch
    budget_s: PositiveNumber | None


class Appraisal(Strict):
    """`limit` in queries a second, 0 if there is none: `why` says so. `deviation` in ln; `home` is
    the directory of the search of the rate that the probes are part of."""

    limit: float
    deviation: float
    why: str
    probes: NotNegative
    spent_s: float
    home: str


class Trial(Appraisal):
    """`number` counts the trials from 1."""

    number: Positive
    values: dict[str, int]

    def line(self) -> str:
        found = f"{self.limit:.4g} qps ± {100 * self.deviation:.1f} %" if self.limit else self.why
        return f"{told(self.values)}: {found} ({self.probes} probes, {self.spent_s:,.0f} s)"


class Trials(Strict):
    """All trials in order; the first is of what is configured."""

    trials: tuple[Trial, ...]


def told(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name.partition('.')[2]} {value}" for name, value in values.items())


def trials_in(home: Path) -> tuple[Trial, ...]:
    """Of a search of settings in its directory; raises UserError if they can't be read."""
    path = home / TRIALS
    if not path.is_file():
        return ()
    try:
        return Trials.model_validate_json(path.read_text(encoding="utf-8")).trials
    except ValidationError as error:
        raise UserError(f"{path} is damaged ({explain(error)}); delete it") from error


def best_of(trials: Sequence[Trial]) -> Trial:
    """The one with the highest limit. What is configured stays where the other's lead over it could
    be chance. Raises UserError if none has a limit."""
    first, best = trials[0], max(trials, key=lambda trial: trial.limit)
    if not best.limit:
        raise UserError(
            f"with no settings does a rate hold; with {told(first.values)}: {first.why}"
        )
    if first.limit:
        lead = math.log(best.limit / first.limit)
        if lead <= math.hypot(best.deviation, first.deviation):
            return first
    return best


def configured(planned: str, space: Space) -> dict[str, int]:
    """The settings that are tried, as a run has them; what it doesn't set isn't tried.

    Raises UserError if one isn't a whole number.
    """
    engine = json.loads(planned)["engine"]
    found: dict[str, int] = {}
    for name in space.values:
        section, key = name.split(".")
        value = engine.get(section, {}).get(key)
        if value is None:
            continue
        if not str(value).isdecimal():
            raise UserError(f"{name} is {value!r}, no whole number; take it out of conf/tune.yaml")
        found[name] = int(value)
    return found


def with_values(planned: str, values: Mapping[str, int]) -> str:
    """JSON of the run with other settings."""
    config = json.loads(planned)
    for name, value in values.items():
        section, key = name.split(".")
        config["engine"][section][key] = str(value) if section == ENVIRONMENT else value
    return canonical_json(config)


def overrides_of(planned: str, values: Mapping[str, int]) -> list[str]:
    """What names the settings that a run has otherwise, for its scenario only."""
    config = json.loads(planned)
    engine, place = config["engine"], f"++system.engine.by_scenario.{config['scenario']}"
    words = []
    for name, value in values.items():
        section, key = name.split(".")
        if str(engine[section][key]) != str(value):
            text = f'"{value}"' if section == ENVIRONMENT else str(value)
            words.append(f"{place}.{name}={text}")
    return words
