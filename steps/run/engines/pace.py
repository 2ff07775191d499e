"""Which of an engine's steps took many times as long as they usually do."""

from typing import NamedTuple

TIMES, LEAST_S = 8.0, 0.05
"""A step is noted from so many medians on, and so many seconds; conf/window.yaml says from where
on it matters."""

NUDGE = 1.02
"""The median follows by so much per step: half of the steps push it up, half down."""

MOST = 10_000


class Slow(NamedTuple):
    """A step that ended at `at` (s, time.perf_counter), took `took_s`, `times` the median."""

    at: float
    took_s: float
    times: float


class Pace:
    """Notes every step, in a few operations each: an engine may make thousands per second."""

    def __init__(self) -> None:
        self._usual_s = 0.0
        self.slow: list[Slow] = []

    def step(self, begun: float, ended: float) -> None:
        took_s, usual_s = ended - begun, self._usual_s
        if took_s <= usual_s:
            self._usual_s = usual_s / NUDGE
            return
        self._usual_s = usual_s * NUDGE if usual_s else took_s
        if took_s >= LEAST_S and took_s >= TIMES * usual_s > 0 and len(self.slow) < MOST:
            self.slow.append(Slow(ended, took_s, took_s / usual_s))

    def taken(self) -> list[Slow]:
        """What was slow since the last call."""
        found, self.slow = self.slow, []
        return found
