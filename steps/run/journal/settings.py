"""conf/journal.yaml as types."""

import functools
from pathlib import Path

import yaml
from pydantic import ValidationError

from steps import ROOT
from steps.base.errors import UserError, explain
from steps.base.record import canonical_json
from steps.base.strict import Fraction, Positive, PositiveNumber, Strict

PATH = ROOT / "conf" / "journal.yaml"


class Tools(Strict):
    """How accelerators are asked: `limit_s` of one call, `share` of a core in all, `failures` one
    after another before a tool isn't asked any more."""

    limit_s: PositiveNumber
    share: Fraction
    failures: Positive


class Cache(Strict):
    """A directory of compiled kernels, or a file: where `variable` of the engine's environment
    says, else the `usual` place, if there is one and engines compute on accelerators."""

    name: str
    variable: str
    usual: str | None


class Bounds(Strict):
    """From where on what the journal holds is a disturbance; see conf/journal.yaml."""

    processes: Fraction
    steal: Fraction
    memory: Fraction
    swap_mb: PositiveNumber
    least_s: PositiveNumber
    bridge_s: PositiveNumber
    still_s: PositiveNumber
    harmless: tuple[str, ...]
    step_times: PositiveNumber
    alone_times: PositiveNumber
    alone_s: PositiveNumber
    most: Positive


class JournalSettings(Strict):
    """`share` of a core that a look at processes, sensors or caches may cost on average;
    `passing`: ends of names that aren't compiled files."""

    share: Fraction
    tools: Tools
    caches: tuple[Cache, ...]
    passing: tuple[str, ...]
    window: Bounds


@functools.cache
def load(path: Path = PATH) -> JournalSettings:
    """Raises UserError naming the key that is wrong."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return JournalSettings.model_validate_json(canonical_json(raw))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read: {' '.join(str(error).split())}") from error
