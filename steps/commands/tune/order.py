"""The order in which LoadGen deals its samples in a Server run, computed before the run.

LoadGen shuffles with the C++ library's std::shuffle from Mersenne Twisters that the round seeds, so
a run of so many queries asks for the same samples in the same order every time. So if the lengths
of the answers are known, a run's whole work is known.
"""

from collections.abc import Iterator

import numpy as np

from steps.config.loadgen import Seeds

WORDS = 1 << 12


def order(
    seeds: Seeds, dataset: int, sample_count: int, min_queries: int, queries: int
) -> np.ndarray:
    """Sample index of each query.

    `dataset`: samples there are, below 65,536; `sample_count`: those of the performance sample set;
    `min_queries`: LoadGen's min_query_count. Beyond that number, LoadGen deals its shuffled copies
    again.
    """
    loaded = _shuffled(np.arange(dataset), _words(seeds.qsl_rng_seed))[:sample_count]
    words = _words(seeds.sample_index_rng_seed)
    # LoadGen shuffles once for the modes that issue each sample once, before those it deals.
    _shuffled(np.arange(sample_count), words)
    copy, copies = np.arange(sample_count), []
    for _ in range(0, min_queries, sample_count):
        copy = _shuffled(copy, words)
        copies.append(copy.copy())
    result: np.ndarray = loaded[np.resize(np.concatenate(copies), queries)]
    return result


def _words(seed: int) -> Iterator[int]:
    """32-bit words of std::mt19937."""
    twister = np.random.RandomState(seed % (1 << 32))
    while True:
        yield from twister._bit_generator.random_raw(WORDS).tolist()


def _below(bound: int, words: Iterator[int]) -> int:
    """A uniform integer below a bound, as libstdc++ draws it since version 11 (Lemire's method)."""
    product = next(words) * bound
    if (product & 0xFFFFFFFF) < bound:
        threshold = (1 << 32) % bound
        while (product & 0xFFFFFFFF) < threshold:
            product = next(words) * bound
    return product >> 32


def _shuffled(values: np.ndarray, words: Iterator[int]) -> np.ndarray:
    """std::shuffle of fewer than 65,536 values: from two positions a draw."""
    found = values.tolist()
    position = 1
    if len(found) % 2 == 0 and found:
        other = _below(2, words)
        found[1], found[other] = found[other], found[1]
        position = 2
    while position < len(found):
        drawn = _below((position + 1) * (position + 2), words)
        for other in divmod(drawn, position + 2):
            found[position], found[other] = found[other], found[position]
            position += 1
    result: np.ndarray = np.array(found)
    return result
