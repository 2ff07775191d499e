"""The latency frontier of a search for target_qps: the share of its limit that each tail reached,
over the rate. A search leaves it beside the run that it ended with.
"""

from pathlib import Path

from pydantic import ValidationError

from steps.base.errors import UserError, explain
from steps.base.strict import Positive, PositiveNumber, Strict

FRONTIER = "frontier.json"
"""Beside a run's manifest and not in it: it isn't part of the run."""

TOP = 10.0
"""The largest share of a limit that is shown: a queue that only grows has any latency."""


class Point(Strict):
    """One probe. `shares`: by limit, its tail over it, at most TOP; `final`: a run in full."""

    rate: PositiveNumber
    queries: Positive
    final: bool
    ended: str
    shares: dict[str, float]


class Frontier(Strict):
    """All probes in order; where the limit is expected, nine in ten times, if that is known."""

    points: tuple[Point, ...]
    between: tuple[PositiveNumber, PositiveNumber] | None

    @classmethod
    def beside(cls, run: Path) -> "Frontier | None":
        """The frontier of the search that a run comes from; None without a search."""
        path = run / FRONTIER
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise UserError(f"{path} is damaged ({explain(error)}); delete it") from error
