"""Calibration prompts of a dataset artifact, read for steps that measure on data."""

from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config.prompts import DatasetResult
from steps.config.results import result_of
from steps.prepare import samples

TRUE = ("tok_output", "tok_ref_output")
"""MLCommons' columns of true answers' tokens: of Llama 2's dataset and of Mixtral's."""


def load(manifest: Path, count: int | None, *, answers: bool = False) -> list[list[int]]:
    """Token ids of the first `count` calibration prompts (None: all), with `answers` appended.

    UserError if there are fewer, or if one of them is an evaluation prompt too: what is tuned on
    the test data proves nothing. MLCommons' own pair of files is exempt from both: its OpenOrca
    samples for calibration are drawn from the evaluation samples, and a number above a set's size
    means all of it, as in AMD's script.
    """
    found = samples.load(manifest)
    official = result_of(Manifest.read(manifest), DatasetResult).official
    if count is not None and count > len(found.calibration) and not official:
        raise UserError(
            f"{count} calibration prompts are wanted, {manifest.parent} has "
            f"{len(found.calibration)}; lower the number or make a larger set"
        )
    chosen = found.calibration[:count]
    tested = set() if official else set(map(tuple, found.evaluation))
    for number, prompt in enumerate(chosen):
        if tuple(prompt) in tested:
            raise UserError(
                f"calibration prompt {number} of {manifest.parent} is an evaluation prompt too; "
                "make disjoint sets, or, for MLCommons' own files, give the md5 of each in "
                "benchmark.dataset"
            )
    if not answers:
        return chosen
    table = _table(manifest)
    column = next((name for name in TRUE if name in table), None)
    if column is None:
        raise UserError(
            f"{manifest.parent} has no answers to its prompts; set calibrate_answers=false"
        )
    true = ([int(token) for token in row] for row in table[column])
    return [[*prompt, *answer] for prompt, answer in zip(chosen, true, strict=False)]


def texts(manifest: Path, count: int | None) -> list[str]:
    """Texts of the first `count` calibration prompts, or of all if there are fewer; call `load`
    first, which refuses what may not be calibrated on."""
    table = _table(manifest)
    if "input" not in table:
        raise UserError(f"{manifest.parent} has no texts of its prompts; make the dataset again")
    return [str(text) for text in table["input"].head(len(table) if count is None else count)]


def _table(manifest: Path) -> Any:
    import pandas

    return pandas.read_pickle(Manifest.read(manifest).file("calibration.pkl"))
