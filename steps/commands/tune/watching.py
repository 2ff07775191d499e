"""Watches a probe while LoadGen runs: ends it as soon as nothing more can be learnt."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from steps.base.errors import UserError
from steps.base.strict import Strict
from steps.commands.tune.arrivals import arrivals
from steps.commands.tune.measure import Limits, Probe, Samples, reason_to_stop
from steps.run.sut.run import Row, TrialEnded

LOOK_S = 5.0
"""How often the samples so far are looked at: it costs the run a few milliseconds."""


class Watched(Strict):
    """A probe and the limits in ms to watch for, None in Offline; `cut_s`: when it ends even if
    answers are missing.
    """

    probe: Probe
    ttft_ms: float | None
    tpot_ms: float | None
    cut_s: float | None = None

    @classmethod
    def read(cls, path: Path) -> "Watched":
        return cls.model_validate_json(path.read_text(encoding="utf-8"))


class Watch:
    """`Trial.look` of a probe. `now_s` is how long the test has run.

    Raises UserError if the search that asked for it is gone: nobody would read the result, and the
    machine would be busy when the search is resumed.
    """

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._parent = os.getppid()
        self._begun: float | None = None
        self._next_s = LOOK_S
        self.now_s = 0.0

    def __call__(self, rows: Iterator[Row]) -> None:
        if os.getppid() != self._parent:
            raise UserError("the search that asked for this probe has ended; start it again")
        if self._begun is None:
            self._begun = time.monotonic()
        self.now_s = time.monotonic() - self._begun
        cut_s = self._watched.cut_s
        if cut_s is not None and self.now_s >= cut_s:
            raise TrialEnded("cut")
        probe, ttft_ms, tpot_ms = self._watched.probe, self._watched.ttft_ms, self._watched.tpot_ms
        if ttft_ms is None or tpot_ms is None or self.now_s < self._next_s:
            return
        self._next_s = self.now_s + LOOK_S
        samples = of_rows(list(rows), probe)
        why = reason_to_stop(samples, self.now_s, Limits(ttft_ms / 1000, tpot_ms / 1000), probe)
        if why:
            raise TrialEnded(why)


def of_rows(rows: list[Row], probe: Probe) -> Samples:
    """Samples of a Server run with their scheduled times, from which LoadGen counts.

    LoadGen's clock and ours are set equal by the query that was issued with the least delay.
    """
    columns = np.array([[_number(cell) for cell in row] for row in rows]).reshape(-1, 6).T
    scheduled = arrivals(probe.seed, probe.rate, max(len(rows), 1))[: len(rows)]
    offset = float((columns[3] - scheduled).min()) if len(rows) else 0.0
    return Samples(
        arrived=scheduled,
        first=columns[4] - offset,
        completed=columns[5] - offset,
        tokens=columns[2].astype(np.int64),
    )


def _number(cell: float | str) -> float:
    return float(cell) if cell != "" else float("nan")
