"""Whether requests are dealt in turn to several engines, each with a queue of its own.

An engine starts requests in the order in which they came. Where later ones overtake earlier ones,
but never within every fourth, they were dealt to four.
"""

from collections.abc import Sequence

import numpy as np

from steps.commands.tune.measure import Samples

MOST = 64
FEW = 0.005
"""A smaller share of requests that the next one overtakes is chance."""

FEWER = 0.2
"""The right number of replicas leaves less than this part of what one more or one fewer leaves."""


def replica_count(probes: Sequence[Samples]) -> int:
    """The fewest engines that explain the order of first tokens; 1 if no number does."""
    if _overtaken(probes, 1) <= FEW:
        return 1
    shares = [_overtaken(probes, count) for count in range(1, MOST + 2)]
    for fewer, count in enumerate(range(2, MOST + 1)):
        beside = min(shares[fewer], shares[fewer + 2])
        if beside > FEW and shares[fewer + 1] < FEWER * beside:
            return count
    return 1


def dealt(samples: Samples, count: int) -> list[Samples]:
    """The requests of each of so many engines."""
    parts = [slice(replica, None, count) for replica in range(count)]
    return [
        Samples(samples.arrived[p], samples.first[p], samples.completed[p], samples.tokens[p])
        for p in parts
    ]


def _overtaken(probes: Sequence[Samples], count: int) -> float:
    """The share of requests whose next one in the same replica had its first token sooner."""
    earlier = [samples.first[count:] < samples.first[:-count] for samples in probes]
    found = np.concatenate(earlier)
    return float(found.mean()) if len(found) else 0.0
