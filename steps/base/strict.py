"""What every typed configuration is made of."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Scenario = Literal["Offline", "Server", "Interactive"]
Division = Literal["closed", "open"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveNumber = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Strict(BaseModel):
    """Immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
