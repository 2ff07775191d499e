"""The error for a search in which no rate is valid."""

import itertools
import math

from steps.base.errors import UserError
from steps.commands.tune.measure import Limits, Measurement, Metric, quantile
from steps.mlperf.early_stopping import PERCENTILE, missing_odds

CHANCE = 1e-3
"""A number of misses with a lower probability isn't chance."""


class InfeasibleError(UserError):
    """No rate keeps the limits; the message says which limit, where and by how much."""


def unlikely(misses: int, count: int) -> bool:
    """Whether this many misses aren't chance if one in a hundred may miss."""
    return 1 - sum(itertools.islice(missing_odds(count), misses)) < CHANCE


def infeasible(
    measured: Measurement, metric: Metric, limits: Limits, begin: str = "no rate meets"
) -> str:
    """As in: no rate meets TPOT 40 ms: at 0.1 queries a second its p99 is 61 ms."""
    tail_ms = 1000 * quantile(measured.samples.latencies(metric), PERCENTILE)
    reached = f"{tail_ms:,.0f} ms" if math.isfinite(tail_ms) else "beyond the run's end"
    return (
        f"{begin} {metric.upper()} {1000 * limits.of(metric):g} ms: at {measured.probe.rate:g} "
        f"queries a second its p99 is {reached} ({len(measured.samples):,} queries)"
    )
