"""Finds engines that are slower than their equals, without a table of speeds. A speed from an
earlier run would have to be of the same node, image, weights and settings, and a node may have
become slow before that; the run's other engines, at the same time on the same samples, show what
each should reach.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Speed:
    """`rate`: tokens per second of one sample; engines of one `device` (model name) are equals."""

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
