"""What else happened on a machine while a run was measured on it."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError
from typing_extensions import Self

from steps.base.strict import NotNegative, Strict

Cause = Literal[
    "processes", "steal", "memory", "swap", "stopped", "still", "throttle", "errors", "compiled"
]
"""What disturbs: `still` is a machine on which nothing ran for a while, the journal neither."""

STEPS: Literal["steps"] = "steps"
"""In a cause's place: the engine's steps alone, with nothing else that would explain them."""


class Cost(Strict):
    """What the engine's steps say of a disturbance: `steps` of them took many times their median,
    the longest `times`; all together took `lost_s` longer than so many usual ones."""

    steps: NotNegative
    times: float
    lost_s: float

    def __str__(self) -> str:
        many = f"{self.times:,.0f} times its median"
        if self.steps == 1:
            return f"a step took {many} then"
        return f"{self.steps:,} steps took up to {self.times:,.0f} times their median then"


class Disturbance(Strict):
    """`words` without the times, which are s since the test's begin; `cost` None: no step in the
    journal was slow.
    """

    by: Cause | Literal["steps"]
    words: str
    from_s: float
    to_s: float
    cost: Cost | None = None

    def __str__(self) -> str:
        text = f"from second {self.from_s:.0f} to {self.to_s:.0f} {self.words}"
        return f"{text}; {self.cost}" if self.cost and self.by != STEPS else text


WINDOW = "window"
"""Key of a `Window` in a run's result; a run that kept no journal has none."""


class Window(Strict):
    """The machine's part in a run; no disturbances: it was clean."""

    disturbances: tuple[Disturbance, ...]

    @property
    def clean(self) -> bool:
        return not self.disturbances

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Self | None:
        """That of a run's result; None if it has none that can be read."""
        try:
            # Results are JSON, so tuples are lists there.
            raw = result.get(WINDOW)
            return None if raw is None else cls.model_validate(raw, strict=False)
        except ValidationError:
            return None
