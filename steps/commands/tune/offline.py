"""How long an Offline run must be, from one that was made.

Filling the engines and running them empty takes the same time in a long run as in a short one, so
the loss shrinks with the run's length: n samples take o + n / r, where r is the rate between and o
what filling and emptying cost.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError
from steps.plan.specs.shared import LOADGEN_SLACK

MIDDLE = (0.2, 0.7)
"""The shares of answers between which an engine counts as full."""

FEWEST = 100
SPARE = 1.02
"""The engine may be so much faster in the next run, and still be busy for the whole duration."""


@dataclass(frozen=True)
class Offline:
    """`full` in samples a second with the engines full; `overhead_s` of filling and emptying."""

    full: float
    overhead_s: float

    @classmethod
    def of(cls, completed_s: Sequence[float]) -> "Offline":
        """Fit the times of all answers. Raises UserError if they are too few."""
        if len(completed_s) < FEWEST:
            raise UserError(
                f"{len(completed_s)} answers are too few to tell full engines from emptying ones; "
                f"an Offline run needs {FEWEST}"
            )
        times = sorted(completed_s)
        first, last = (int(share * len(times)) for share in MIDDLE)
        full = (last - first) / max(times[last] - times[first], 1e-9)
        return cls(full, max(times[-1] - len(times) / full, 0.0))

    def throughput(self, samples: int) -> float:
        """Samples a second of a run of so many."""
        return samples / (self.overhead_s + samples / self.full)

    def samples(self, share: float) -> float:
        """How many samples reach this share of the throughput of an endless run."""
        return self.overhead_s * self.full * share / (1 - share)

    def target_qps(self, duration_s: float) -> float:
        """The target_qps with which LoadGen issues enough samples for this duration."""
        samples = self.full * (duration_s - min(self.overhead_s, duration_s / 2))
        return SPARE * samples / (LOADGEN_SLACK * duration_s)


def read(path: Path) -> Offline:
    """Read samples.csv of an Offline run."""
    with path.open(encoding="utf-8", newline="") as stream:
        return Offline.of([float(row["completed_s"]) for row in csv.DictReader(stream)])


def advice(found: Offline, duration_s: float, sample_count: int, share: float) -> str:
    """Lines for a user: what to set, and from which length on more samples make no difference.

    `duration_s` and `sample_count` (of the performance sample set) are the rules'.
    """
    rate = found.target_qps(duration_s)
    least = -(-int(LOADGEN_SLACK * duration_s * rate) // sample_count) * sample_count
    enough = max(-(-int(found.samples(share)) // sample_count), 1) * sample_count
    seconds = found.overhead_s + enough / found.full
    return (
        f"full engines answer {found.full:,.4g} samples/s; filling and emptying takes "
        f"{found.overhead_s:.1f} s\n"
        f"target_qps {rate:.4g} makes {least:,} samples, {least / found.full:,.0f} s: "
        f"{found.throughput(least):,.4g} samples/s\n"
        f"{enough:,} samples ({seconds:,.0f} s) reach {share:.1%} of what any longer run does"
    )
