"""Prompts of a dataset artifact, checked before an engine is started."""

import pickle
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import Manifest

UNPICKLING = (
    *(pickle.UnpicklingError, EOFError, LookupError, AttributeError, ImportError),
    *(TypeError, ValueError, NotImplementedError),
)
"""Exceptions for bytes that aren't a pickle, or for a pickle of anything but such a table.

NotImplementedError: pandas, for a table of a newer pandas.
"""


@dataclass(frozen=True)
class Samples:
    """Token ids per sample, in the order of LoadGen's sample indices; with the warm-up's apart."""

    evaluation: list[list[int]]
    calibration: list[list[int]]


def load(manifest: Path) -> Samples:
    """Raises UserError for a dataset that is damaged or has other columns than MLCommons'."""
    dataset = Manifest.read(manifest)
    # Unpickling runs code, so nothing but the very bytes that the recipe wrote is unpickled.
    dataset.require_whole()
    return Samples(
        evaluation=_tokens(dataset.file("evaluation.pkl")),
        calibration=_tokens(dataset.file("calibration.pkl")),
    )


def _tokens(path: Path) -> list[list[int]]:
    import pandas

    try:
        column = pandas.read_pickle(path)["tok_input"]
        prompts = [[int(token) for token in tokens] for tokens in column]
    except UNPICKLING as error:
        raise _unusable(path, error) from error
    if not prompts:
        raise _unusable(path, "it has no rows")
    if [] in prompts:
        raise _unusable(path, f"sample {prompts.index([])} has no tokens")
    return prompts


def _unusable(path: Path, reason: object) -> UserError:
    return UserError(
        f"{path} isn't a table of prompts with a column tok_input ({reason}); "
        "delete its directory and re-run"
    )
