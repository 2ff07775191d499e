"""Engines that are slower than they should be: measured against their equals, not against a table.

A speed from a former run would have to be of the same node, image, weights and settings, and would
call an engine healthy that has become slow since; what all engines of a run do at the same time on
the same samples says what each should do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Speed:
    """`rate`: tokens per second of one sample; equals are on the same `device`, by model name."""

    device: str
    rate: float


def degraded(speeds: Mapping[int, Speed], below: float) -> dict[int, float]:
    """Engines at less than this share of the median of their equals, and their shares."""
    shares = {}
    for number, speed in speeds.items():
        equals = [other.rate for other in speeds.values() if other.device == speed.device]
        share = speed.rate / median(equals)
        if share < below:
            shares[number] = share
    return shares
