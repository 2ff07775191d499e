"""What every typed configuration is made of."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Scenario = Literal["Offline", "Server", "Interactive"]
Division = Literal["closed", "open"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveNumber = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(ge=1e-3, le=1e7)]
"""Queries per second of LoadGen: from one in a quarter of an hour to ten times what it sends (about
a million a second to an engine that does nothing, make bench)."""

Fraction = Annotated[float, Field(gt=0, le=1)]


class Strict(BaseModel):
    """Immutable; an unknown key is an error, and so is a number that is NaN or infinite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
