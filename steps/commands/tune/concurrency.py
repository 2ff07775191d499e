"""How many requests ran and waited, from each one's times."""

from dataclasses import dataclass

import numpy as np

from steps.commands.tune.measure import Samples

QUEUED = 3
"""This many waiting, and a tenth of those running, are a queue and not only requests being started.
"""

FULL = 0.985
"""Places limit an engine if, while requests wait, this share of them is mostly taken: with any
other cause of waiting, the number that run is random.
"""

FEWEST = 20
"""Fewer observations show nothing."""


@dataclass(frozen=True)
class Concurrency:
    """Step functions of time: at `times` the number of running (and waiting) requests changes."""

    times: np.ndarray
    running: np.ndarray
    waiting: np.ndarray

    @classmethod
    def of(cls, samples: Samples) -> "Concurrency":
        known = ~np.isnan(samples.first)
        first = samples.first[known]
        completed = samples.completed[~np.isnan(samples.completed)]
        times = np.concatenate([samples.arrived, first, completed])
        ones = (np.ones(len(samples.arrived)), np.ones(len(first)), np.ones(len(completed)))
        runs = np.concatenate([0 * ones[0], ones[1], -ones[2]])
        waits = np.concatenate([ones[0], -ones[1], 0 * ones[2]])
        order = np.argsort(times, kind="stable")
        return cls(times[order], np.cumsum(runs[order]), np.cumsum(waits[order]))

    def at(self, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Running and waiting just before each moment."""
        index = np.searchsorted(self.times, moments, side="left") - 1
        inside = index >= 0
        return (
            np.where(inside, self.running[index], 0),
            np.where(inside, self.waiting[index], 0),
        )

    def mean_running(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Mean number running within each span."""
        area = np.concatenate([[0.0], np.cumsum(self.running[:-1] * np.diff(self.times))])
        span = np.maximum(end - begin, 1e-9)
        difference = np.interp(end, self.times, area) - np.interp(begin, self.times, area)
        result: np.ndarray = difference / span
        return result

    def slots(self) -> float:
        """How many run while others wait; infinite if none had to wait."""
        spans = np.diff(self.times)
        queued = self.waiting[:-1] > np.maximum(QUEUED, self.running[:-1] / 10)
        if not len(spans) or spans[queued].sum() < 0.02 * spans.sum():
            return np.inf
        running, weight = self.running[:-1][queued], spans[queued]
        order = np.argsort(running)
        total = np.cumsum(weight[order])
        most, half = running[order][np.searchsorted(total, [0.9 * total[-1], 0.5 * total[-1]])]
        return float(most) if half >= min(FULL * most, most - 1) else np.inf

    def start_gaps(self, slots: float) -> tuple[np.ndarray, np.ndarray]:
        """Times from one start to the next while requests wait though places are free, and how many
        ran; empty if that never lasted.
        """
        spans, running, waiting = np.diff(self.times), self.running[:-1], self.waiting[:-1]
        held_up = (waiting > np.maximum(QUEUED, running / 5)) & (running < 0.8 * slots)
        started = held_up & (np.diff(self.waiting) < 0)
        if int(started.sum()) < FEWEST:
            return np.empty(0), np.empty(0)
        passed = np.cumsum(np.where(held_up, spans, 0.0))
        return np.diff(passed[started], prepend=0.0), running[started]
