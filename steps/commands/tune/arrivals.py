"""LoadGen's Server schedule, computed before the run.

The gaps come from a 32-bit Mersenne Twister seeded with the round's schedule_rng_seed, two words a
draw, as libstdc++'s exponential distribution uses them; a rate only scales them. So every run of a
round sees the same bursts, and a run's tail can be computed for the arrivals it will really have.
"""

import functools
from dataclasses import dataclass

import numpy as np

from steps.config.runs import PerformanceRunConfig
from steps.mlperf.early_stopping import allowed_misses

WORD = 2.0**32
LOADGEN_MIN_QUERIES = 100
"""min_query_count of Server where user.conf names none (mlperf.conf)."""

BLOCK = 1 << 16


@functools.lru_cache(maxsize=8)
def unit_arrivals(seed: int, blocks: int) -> np.ndarray:
    """Scheduled times in s at one query a second, the first at 0; `blocks` x 65,536 of them."""
    twister = np.random.RandomState(seed % (1 << 32))
    words = twister._bit_generator.random_raw(2 * BLOCK * blocks).astype(np.float64)
    uniform = (words[0::2] + words[1::2] * WORD) / WORD**2
    gaps = -np.log(1 - uniform)
    times = np.zeros(len(gaps))
    np.cumsum(gaps[:-1], out=times[1:])
    return times


def arrivals(seed: int, rate: float, count: int) -> np.ndarray:
    """Scheduled times in s of the first `count` queries at `rate` a second."""
    result: np.ndarray = unit_arrivals(seed, -(-count // BLOCK))[:count] / rate
    return result


@dataclass(frozen=True)
class Length:
    """The settings that decide how many queries a run has: whole copies of `sample_count`, as equal
    issue requires.

    `min_duration_s` is that of the schedule, not of the answers.
    """

    seed: int
    sample_count: int
    min_queries: int
    min_duration_s: float

    @classmethod
    def of(cls, config: PerformanceRunConfig, schedule_seed: int) -> "Length":
        loadgen, rules = config.loadgen, config.rules
        return cls(
            seed=schedule_seed,
            sample_count=loadgen.sample_count(rules),
            min_queries=loadgen.min_query_count or LOADGEN_MIN_QUERIES,
            min_duration_s=loadgen.least_ms(rules) / 1000,
        )

    def queries(self, rate: float) -> int:
        """Queries of a run at this rate."""
        copies = -(-self.min_queries // self.sample_count)
        guess = int(self.min_duration_s * rate / self.sample_count)
        copies = max(copies, guess - 1, 1)
        while self._last_s(copies * self.sample_count, rate) < self.min_duration_s:
            copies += 1
        while copies > 1 and (copies - 1) * self.sample_count >= self.min_queries:
            if self._last_s((copies - 1) * self.sample_count, rate) < self.min_duration_s:
                break
            copies -= 1
        return copies * self.sample_count

    def duration_s(self, rate: float) -> float:
        """When the last query of a run at this rate is scheduled."""
        return self._last_s(self.queries(rate), rate)

    def allowed_misses(self, rate: float) -> int:
        return allowed_misses(self.queries(rate))

    def _last_s(self, count: int, rate: float) -> float:
        return float(arrivals(self.seed, rate, count)[-1])
