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
    """What "parity" and "linear" mean in numbers."""

    parity: Share
    linear: Share


class Tolerances(Strict):
    """Shares. `partner` is by round and accelerator; `other` is for those without a line there."""

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
