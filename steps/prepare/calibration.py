"""Calibration prompts of a dataset artifact, read for steps that measure on data."""

from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.prepare import samples


def load(manifest: Path, count: int | None, *, answers: bool = False) -> list[list[int]]:
    """Token ids of the first `count` calibration prompts (None: all), with `answers` appended.

    UserError if there are fewer, or if one of them is an evaluation prompt too: what is tuned on
    the test data proves nothing.
    """
    found = samples.load(manifest)
    if count is not None and count > len(found.calibration):
        raise UserError(
            f"{count} calibration prompts are wanted, {manifest.parent} has "
            f"{len(found.calibration)}; lower the number or make a larger set"
        )
    chosen = found.calibration[:count]
    tested = set(map(tuple, found.evaluation))
    for number, prompt in enumerate(chosen):
        if tuple(prompt) in tested:
            raise UserError(
                f"calibration prompt {number} of {manifest.parent} is an evaluation prompt too; "
                "make disjoint sets"
            )
    if not answers:
        return chosen
    import pandas

    table = pandas.read_pickle(Manifest.read(manifest).file("calibration.pkl"))
    if "tok_output" not in table:
        raise UserError(
            f"{manifest.parent} has no answers to its prompts; set calibrate_answers=false"
        )
    true = ([int(token) for token in row] for row in table["tok_output"])
    return [[*prompt, *answer] for prompt, answer in zip(chosen, true, strict=False)]
