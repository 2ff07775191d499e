"""Calibration prompts of a dataset artifact, as steps that measure on data read them."""

from pathlib import Path

from steps.errors import UserError
from steps.sut import samples


def load(manifest: Path, count: int | None) -> list[list[int]]:
    """Token ids of the first `count` calibration prompts; None: of all.

    UserError if there are fewer, or if one of them is an evaluation prompt too: what is tuned on
    the test proves nothing.
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
    return chosen
