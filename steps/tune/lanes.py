"""Whether requests are dealt in turn to several engines, each with a queue of its own.

An engine starts requests in the order in which they came. Where later ones overtake earlier ones,
but never within every fourth, they were dealt to four.
"""

from collections.abc import Sequence

import numpy as np

from steps.tune.measure import Samples

MOST = 64
FEW = 0.005
"""So small a share of requests that are overtaken by the next is chance."""

FEWER = 0.2
"""Lanes leave at most this part of the overtaking that there is without."""


def lanes(probes: Sequence[Samples]) -> int:
    """The fewest engines by which the order of first tokens is explained; 1 if none explains it."""
    overtaken = _overtaken(probes, 1)
    if overtaken <= FEW:
        return 1
    shares = [_overtaken(probes, count) for count in range(2, MOST + 1)]
    best = min(shares)
    if best > FEWER * overtaken:
        return 1
    return 2 + next(i for i, share in enumerate(shares) if share <= best + FEWER * overtaken)


def dealt(samples: Samples, count: int) -> list[Samples]:
    """What each of so many engines was dealt."""
    parts = [slice(lane, None, count) for lane in range(count)]
    return [
        Samples(samples.arrived[p], samples.first[p], samples.completed[p], samples.tokens[p])
        for p in parts
    ]


def _overtaken(probes: Sequence[Samples], count: int) -> float:
    """The share of requests whose next one in the same lane had its first token sooner."""
    earlier = [samples.first[count:] < samples.first[:-count] for samples in probes]
    return float(np.concatenate(earlier).mean()) if earlier else 0.0
