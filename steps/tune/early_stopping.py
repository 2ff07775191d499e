"""LoadGen's early stopping: how many queries may miss a limit in a run of so many.

A run of n queries holds if so few misses had a probability below 1 - confidence, were the share of
misses one hundredth: P(Binomial(n, 1 - percentile) <= misses) < 1 - confidence (rule and constants:
loadgen/early_stopping.cc and results.cc of mlcommons/inference).
"""

import functools
import math

PERCENTILE = 0.99
CONFIDENCE = 0.99


@functools.lru_cache(maxsize=4096)
def allowed_misses(queries: int) -> int:
    """The most queries that may miss a limit; -1 if a run of so few can't hold (below 459)."""
    missing = 1 - PERCENTILE
    odds = math.log(missing) - math.log(PERCENTILE)
    log_term = queries * math.log(PERCENTILE)
    total, misses = math.exp(log_term), 0
    if total >= 1 - CONFIDENCE:
        return -1
    while True:
        log_term += math.log((queries - misses) / (misses + 1)) + odds
        total += math.exp(log_term)
        if total >= 1 - CONFIDENCE:
            return misses
        misses += 1


def needed_share(queries: int) -> float:
    """The share of queries that has to keep a limit: 0.9915 of 24,576, 0.9925 of 8,313."""
    return 1 - max(allowed_misses(queries), 0) / queries
