"""`conf/tolerances.yaml`, typed."""

from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from steps import ROOT
from steps.base.errors import UserError, explain
from steps.base.strict import Strict

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
    try:
        return Tolerances.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from error
