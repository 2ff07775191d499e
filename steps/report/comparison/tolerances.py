"""`conf/tolerances.yaml`, typed."""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from steps import ROOT
from steps.base.strict import Strict
from steps.base.yaml_text import typed

FILE = ROOT / "conf/tolerances.yaml"

Share = Annotated[float, Field(gt=0, lt=1)]


class ClaimTolerances(Strict):
    """What the claims ledger takes words without a number for, as shares.

    `parity`: "parity" is within this share of 100 %. `linear`: "linear scaling" is within this
    share of the sum of the parts.
    """

    parity: Share
    linear: Share


class Tolerances(Strict):
    """How far a result may be from a published one before it is worth a second look, as shares.

    `partner`: by round and accelerator. `other`: for those without a line there. `claims`: for
    words of the claims ledger.
    """

    partner: dict[str, dict[str, Share]]
    other: Share
    claims: ClaimTolerances

    def of(self, round_name: str, gpu: str) -> float:
        """The share for an accelerator, by the round of its published reference."""
        return self.partner.get(round_name, {}).get(gpu, self.other)


@cache
def load(path: Path = FILE) -> Tolerances:
    """Raises UserError naming the key that is wrong."""
    return typed(path, Tolerances)
