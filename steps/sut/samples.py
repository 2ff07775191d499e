"""Prompts of a dataset artifact, checked before an engine is started."""

import pickle
from dataclasses import dataclass
from pathlib import Path

from steps.errors import UserError
from steps.record import Manifest


@dataclass(frozen=True)
class Samples:
    """Token ids per sample, in the order of LoadGen's sample indices; warm-up ones apart."""

    evaluation: list[list[int]]
    calibration: list[list[int]]


def load(manifest: Path) -> Samples:
    """Raises UserError for a dataset that is damaged or has other columns than MLCommons'."""
    dataset = Manifest.read(manifest)
    # Unpickling runs code, so nothing but the very bytes that the recipe wrote is unpickled.
    for complaint in dataset.damage():
        raise UserError(f"{complaint}; delete {dataset.directory} and re-run")
    return Samples(
        evaluation=_tokens(dataset.file("evaluation.pkl")),
        calibration=_tokens(dataset.file("calibration.pkl")),
    )


def _tokens(path: Path) -> list[list[int]]:
    import pandas

    try:
        column = pandas.read_pickle(path)["tok_input"]
    except (pickle.UnpicklingError, EOFError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is no pickle of a table with column tok_input ({error}); "
            "delete its directory and re-run"
        ) from error
    return [list(tokens) for tokens in column]
