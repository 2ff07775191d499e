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
    """How amd-smi, rocm-smi or nvidia-smi is asked.

    `limit_s`: of one call. `share`: of a core that all calls may cost on average. `failures`: one
    after another, before the tool isn't asked any more.
    """

    limit_s: PositiveNumber
    share: Fraction
    failures: Positive


class Cache(Strict):
    """A directory of compiled kernels, or a file: at the path in `variable` of the engine's
    environment, else the `usual` one, if set and engines compute on accelerators.
    """

    name: str
    variable: str
    usual: str | None


class Bounds(Strict):
    """Bounds above which the journal's values are a disturbance.

    Shares of the cores that the run may use, taken by other `processes`, and taken by the
    hypervisor (`steal`); `memory`: share of a second in which every process waited for it.
    `swap_mb`: in and out in a second. `least_s`: how long the first three must last;
    `bridge_s`: two of a kind with so little between them are one; `still_s`: between two lines of
    the journal. `harmless`: reasons that slow an accelerator by its settings or at its full power,
    not by a fault. `step_times`: medians from which on a step counts as a disturbance's cost;
    `alone_times`: medians from which on it is one by itself, if it took `alone_s`. `most`:
    disturbances; of more the longest are kept.
    """

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
    """What a journal holds, and what of it disturbs.

    `share`: of a core that a look at processes, sensors or caches may cost on average. `passing`:
    ends of names that a cache makes and removes again.
    """

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
