"""A probe, its measurements, and when it may end early."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from steps.base.strict import NotNegative, Positive, PositiveNumber, Strict
from steps.commands.tune.config import Metric as Metric
from steps.config.run_results import Ended
from steps.mlperf.early_stopping import needed_share

METRICS: tuple[Metric, ...] = ("ttft", "tpot")

GROWTH_DEVIATIONS = 4.0
"""Arrivals less completions of a queue that keeps up scatter as Poisson's do; this many deviations
don't happen by chance.
"""

OVERLOAD_SHARE = 0.1
"""A rate at which this many of the latest queries miss a limit is far beyond any valid one."""

NO_TAIL = ("overload", "cut")
"""Ends of probes whose slowest answers weren't waited for."""

FEWEST_COMPLETED = 50
LATENCIES = 3.0
"""An overloaded probe goes on until it has this many answers, and for this many times the median
answer's time, so that the engine's speed under full load is known.
"""


@dataclass(frozen=True)
class Limits:
    """Latency limits in s, as the round sets them at one scenario."""

    ttft: float
    tpot: float

    def of(self, metric: Metric) -> float:
        return self.ttft if metric == "ttft" else self.tpot


class Probe(Strict):
    """One LoadGen run to be made: `queries` at `rate` a second.

    `final`: of the rules' length, a result if it is VALID. Else a probe of so many queries, which
    shorter sample sets make possible, with other seeds than the round's: each probe has other
    bursts and other samples. `number` counts the probes of a search from 1.
    """

    number: Positive
    seed: int
    rate: PositiveNumber
    queries: Positive
    final: bool
    allowed_misses: NotNegative | None


@dataclass(frozen=True)
class Samples:
    """Per query, in order of arrival, in s since the first: NaN where it hasn't happened.

    `arrived` is the scheduled time, which is where LoadGen's latencies begin. `tokens` counts those
    of the answer, 0 while there is none.
    """

    arrived: np.ndarray
    first: np.ndarray
    completed: np.ndarray
    tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.arrived)

    def latencies(self, metric: Metric) -> np.ndarray:
        """TTFT or TPOT in s; NaN where it isn't known yet."""
        result: np.ndarray = self.first - self.arrived
        if metric == "tpot":
            result = (self.completed - self.first) / np.maximum(self.tokens - 1, 1)
        return result

    def missed(self, metric: Metric, limit_s: float, now_s: float) -> np.ndarray:
        """Which queries are known to miss a limit at this time; one that waits may already."""
        found = self.latencies(metric) > limit_s
        if metric == "ttft":
            found |= np.isnan(self.first) & (now_s - self.arrived > limit_s)
        result: np.ndarray = found
        return result


@dataclass(frozen=True)
class Measurement:
    """`ended`: stopped early because the queue could only grow, because it could no longer be
    VALID, or ("cut") because there was no time to wait for the last answers.

    `valid`: LoadGen's verdict on a final run that went to its end. `measured_s` includes what an
    engine takes to answer the last query, not its start; `start_s` is that.
    """

    probe: Probe
    samples: Samples
    ended: Ended
    measured_s: float
    start_s: float
    valid: bool | None

    def tail(self, metric: Metric) -> float:
        """The latency limit in s at the share of queries that must keep it."""
        return quantile(self.samples.latencies(metric), needed_share(self.samples.arrived.size))

    def missed_share(self, limits: Limits) -> float:
        """The larger share of queries that missed one of the limits."""
        count = max(len(self.samples), 1)
        return max(
            float(self.samples.missed(metric, limits.of(metric), self.measured_s).sum()) / count
            for metric in METRICS
        )


def quantile(values: np.ndarray, share: float) -> float:
    """The smallest value that at least this share keeps; unknown ones count as infinite."""
    if not len(values):
        return float("nan")
    ordered = np.sort(np.where(np.isnan(values), np.inf, values))
    index = min(len(ordered) - 1, max(0, int(np.ceil(share * len(ordered) - 1e-9)) - 1))
    return float(ordered[index])


def reason_to_stop(
    samples: Samples, now_s: float, limits: Limits, probe: Probe
) -> Literal["overload", "futile"] | None:
    """Why a probe may end at this point; None if it should continue."""
    missed = {m: samples.missed(m, limits.of(m), now_s) for m in METRICS}
    if probe.allowed_misses is not None and any(
        int(found.sum()) > probe.allowed_misses for found in missed.values()
    ):
        return "futile"
    arrived = samples.arrived[: int(np.searchsorted(samples.arrived, now_s))]
    if not len(arrived):
        return None
    completed = samples.completed[np.nan_to_num(samples.completed, nan=np.inf) <= now_s]
    if len(completed) < FEWEST_COMPLETED:
        return None
    median_s = float(np.nanmedian(samples.completed - samples.arrived))
    half_s = now_s / 2
    came = len(arrived) - int(np.searchsorted(arrived, half_s))
    went = int((completed > half_s).sum())
    if not came or now_s < LATENCIES * median_s or came - went < GROWTH_DEVIATIONS * np.sqrt(came):
        return None
    late = slice(int(np.searchsorted(arrived, half_s)), len(arrived))
    share = max(float(found[: len(arrived)][late].mean()) for found in missed.values())
    return "overload" if share > OVERLOAD_SHARE else None
