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


PROMPTS, STOPS = "tok_input", "tok_stop_sequence"
"""MLCommons' columns."""

LATENTS = "latents.pt"
"""MLCommons' name of the noise that every picture starts from."""


@dataclass(frozen=True)
class Samples:
    """Token ids per sample, in the order of LoadGen's sample indices; with the warm-up's apart.

    `stops`: the sequence of token ids that ends each sample's answer; empty if they weren't asked.
    """

    evaluation: list[list[int]]
    calibration: list[list[int]]
    stops: list[list[int]]


def load(manifest: Path, *, stops: bool = False) -> Samples:
    """Raises UserError for a dataset that is damaged or has other columns than MLCommons'.

    `stops`: whether it has a stop sequence for each sample, as that of Mixtral.
    """
    dataset = Manifest.read(manifest)
    # Unpickling runs code, so nothing but the very bytes that the recipe wrote is unpickled.
    dataset.require_whole()
    evaluation = dataset.file("evaluation.pkl")
    return Samples(
        evaluation=_tokens(evaluation, PROMPTS),
        calibration=_tokens(dataset.file("calibration.pkl"), PROMPTS),
        stops=_tokens(evaluation, STOPS) if stops else [],
    )


def _tokens(path: Path, name: str) -> list[list[int]]:
    """A column of token ids, at least one in each row."""
    import pandas

    try:
        column = pandas.read_pickle(path)[name]
        rows = [[int(token) for token in tokens] for tokens in column]
    except UNPICKLING as error:
        raise _unusable(path, name, error) from error
    if not rows:
        raise _unusable(path, name, "it has no rows")
    if [] in rows:
        raise _unusable(path, name, f"sample {rows.index([])} has no tokens")
    for number, row in enumerate(rows):
        if min(row) < 0:
            raise _unusable(path, name, f"sample {number} has a token {min(row)}")
    return rows


def _unusable(path: Path, name: str, reason: object) -> UserError:
    return UserError(
        f"{path} isn't a table of prompts with a column {name} ({reason}); "
        "delete its directory and re-run"
    )
