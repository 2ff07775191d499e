"""LoadGen's early stopping: how many queries may miss a limit in a run of so many.

A run of n queries is valid if so few misses would have a probability below 1 - confidence at a
share of misses of one hundredth: P(Binomial(n, 1 - percentile) <= misses) < 1 - confidence (rule
and constants: loadgen/early_stopping.cc and results.cc of mlcommons/inference).
"""

import functools
import math
from collections.abc import Iterator

PERCENTILE = 0.99
CONFIDENCE = 0.99


@functools.lru_cache(maxsize=4096)
def allowed_misses(queries: int) -> int:
    """The most queries that may miss a limit; -1 if a run of so few can't be valid (below 459)."""
    total = 0.0
    for misses, probability in enumerate(missing_odds(queries)):
        total += probability
        if total >= 1 - CONFIDENCE:
            return misses - 1
    return queries


def missing_odds(queries: int) -> Iterator[float]:
    """The probabilities that 0, 1, ... of these queries miss a limit if one in a hundred may.

    Summed in logarithms: a binomial coefficient of a thousand queries is beyond a float.
    """
    odds = math.log(1 - PERCENTILE) - math.log(PERCENTILE)
    log_term = queries * math.log(PERCENTILE)
    for misses in range(queries + 1):
        yield math.exp(log_term)
        if misses < queries:
            log_term += math.log((queries - misses) / (misses + 1)) + odds


def needed_share(queries: int) -> float:
    """The share of queries that must keep a limit: 0.9915 of 24,576, 0.9925 of 8,313."""
    return 1 - max(allowed_misses(queries), 0) / queries
