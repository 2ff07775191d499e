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
    """Shares. `partner` is by accelerator; "other" is for those without a line of their own."""

    partner: dict[str, Share]
    claims: ClaimTolerances

    def of(self, gpu: str) -> float:
        return self.partner.get(gpu, self.partner["other"])


@cache
def load(path: Path = FILE) -> Tolerances:
    """Raises UserError naming the key that is wrong."""
    try:
        found = Tolerances.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    if "other" not in found.partner:
        raise UserError(f"{path}: partner has no `other`; give it a share")
    return found
