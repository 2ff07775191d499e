"""Typed `conf/tune.yaml`."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from steps.errors import UserError, explain
from steps.record import canonical_json
from steps.strict import Fraction, Positive, PositiveNumber, Strict

PATH = Path(__file__).resolve().parent.parent.parent / "conf" / "tune.yaml"


Metric = Literal["ttft", "tpot"]


class SearchSettings(Strict):
    """How rates are searched.

    `tolerance`: what may be left below the limit, as a share of the rate. `explore_s`: length of
    the first probes; `refine_s`: lengths among which later ones choose, in s of schedule.
    `explore_limit` and `confirm_limit`: how many of each at most. `idle_running`: an engine with
    fewer requests at a time is as good as idle, and a limit it misses then is missed at any rate.
    `caution`: how many deviations below the expected limit a run is tried, though little below it
    unless chance decides which runs hold.
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


class TuneConfig(Strict):
    """`offline_share`: of an endless Offline run's throughput; longer runs aren't worth it."""

    offline_share: Fraction
    search: SearchSettings


def load(path: Path = PATH) -> TuneConfig:
    """Raises UserError naming the key that is wrong."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TuneConfig.model_validate_json(canonical_json(raw))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read: {' '.join(str(error).split())}") from error
