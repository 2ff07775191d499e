"""The request of `tune --settings` to the process that tries settings, and its result."""

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
    """`base`: the search of the rate with the configured settings. `context`: as identity() takes
    it, in JSON; `below`: the directory above those of all searches of the cell.
    """

    base: Request
    context: tuple[object, ...]
    below: str
    space: Space
    search: SettingsSearch
    budget_s: PositiveNumber | None


class Appraisal(Strict):
    """`limit` in queries a second, 0 without one: `why` has the reason. `deviation` in ln; `home`
    is the directory of the search of the rate that the probes are part of.
    """

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
    """All trials in order; the first is of the configured settings."""

    trials: tuple[Trial, ...]


def told(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name.partition('.')[2]} {value}" for name, value in values.items())


def trials_in(home: Path) -> tuple[Trial, ...]:
    """The trials in a settings search's directory. Raises UserError if they can't be read."""
    path = home / TRIALS
    if not path.is_file():
        return ()
    try:
        return Trials.model_validate_json(path.read_text(encoding="utf-8")).trials
    except ValidationError as error:
        raise UserError(f"{path} is damaged ({explain(error)}); delete it") from error


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest limit; the configured settings if its lead over them could be
    chance. Raises UserError if none has a limit.
    """
    first, best = trials[0], max(trials, key=lambda trial: trial.limit)
    if not best.limit:
        raise UserError(f"no settings have a valid rate; with {told(first.values)}: {first.why}")
    if first.limit:
        lead = math.log(best.limit / first.limit)
        if lead <= math.hypot(best.deviation, first.deviation):
            return first
    return best


def configured(planned: str, space: Space) -> dict[str, int]:
    """A run's values of the settings to try; a setting that the run lacks isn't tried.

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
            raise UserError(
                f"{name} is {value!r}, not a whole number; take it out of conf/tune.yaml"
            )
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
    """Overrides for the settings that differ, for the run's scenario only."""
    config = json.loads(planned)
    engine, words = config["engine"], []
    for name, value in values.items():
        section, key = name.split(".")
        if str(engine[section][key]) != str(value):
            short = f"{section}.{key}" if section == ENVIRONMENT else key
            words.append(f"set.{config['scenario']}.engine.{short}={value}")
    return words
