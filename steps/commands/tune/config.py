"""Typed `conf/tune.yaml`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from steps import ROOT
from steps.base.strict import Fraction, NotNegative, Positive, PositiveNumber, Strict
from steps.base.yaml_text import typed

PATH = ROOT / "conf/tune.yaml"


Metric = Literal["ttft", "tpot"]


class SearchSettings(Strict):
    """How rates are searched.

    `tolerance`: the allowed distance below the limit, as a share of the rate. `explore_s`: length
    of the first probes, in s of schedule. `refine_s`: lengths among which later ones choose, in s
    of schedule. `explore_limit`: how many of the first probes at most. `refine_limit`: how many of
    the later ones. `confirm_limit`: how many runs of the rules' length. `idle_running`: an engine
    with fewer requests at a time is as good as idle, and a limit it misses then is missed at any
    rate. `caution`: how many deviations below the expected limit a run is tried, though only a
    little below it unless chance decides which runs are valid. `caution_last`: the same for the
    only run that the budget still has time for, while none was valid.
    """

    tolerance: Fraction
    explore_s: PositiveNumber
    refine_s: tuple[PositiveNumber, ...]
    explore_limit: Positive
    refine_limit: Positive
    confirm_limit: Positive
    idle_running: PositiveNumber
    caution: PositiveNumber
    caution_last: PositiveNumber


Setting = Annotated[str, Field(pattern=r"^(arguments|environment)\.[A-Za-z0-9_]+$")]
"""A setting's place in an engine's configuration."""


class Space(Strict):
    """The values to try for one kind of engine; configured ones are tried too.

    `values`: by the setting's place in the engine's configuration; at least two of each. `rising`:
    settings of which none may be larger than the next.
    """

    values: Annotated[dict[Setting, tuple[Positive, ...]], Field(min_length=1)]
    rising: tuple[tuple[Setting, ...], ...]

    @model_validator(mode="after")
    def there_is_something_to_choose(self) -> Self:
        for name, values in self.values.items():
            if len(set(values)) < 2:
                raise ValueError(f"{name} has {len(set(values))} values, so nothing to choose from")
        for name in {name for chain in self.rising for name in chain} - set(self.values):
            raise ValueError(f"rising names {name}, of which there are no values")
        return self

    def allows(self, values: Mapping[str, int]) -> bool:
        """Settings that aren't among the values aren't restricted."""
        chains = [[values[name] for name in chain if name in values] for chain in self.rising]
        return all(chain == sorted(chain) for chain in chains)


class SettingsSearch(Strict):
    """How an engine's settings are searched.

    `trials`: how many at most. `at_random`: how many of them are drawn before Optuna learns from
    them. `seed`: of Optuna's sampler. `budget_share`: what part of --budget goes into them; the
    rest goes into the rate. `spaces`: what is tried, by kind of engine.
    """

    trials: Positive
    at_random: Positive
    seed: NotNegative
    budget_share: Fraction
    spaces: dict[str, Space]


class TuneConfig(Strict):
    """All of `conf/tune.yaml`.

    `offline_share`: a run that reaches it, of an endless run's throughput, is long enough.
    `search`: how rates are searched. `settings`: how --settings searches an engine's settings.
    """

    offline_share: Fraction
    search: SearchSettings
    settings: SettingsSearch


def load(path: Path = PATH) -> TuneConfig:
    """Raises UserError naming the key that is wrong."""
    return typed(path, TuneConfig)
