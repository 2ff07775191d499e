"""What the journal beside a run costs: null engines that answer at once, with it and without.

Offline: samples per second with the journal over the mean of two runs without, of the engine in
LoadGen's process and of two engine processes, the three in turn; and those two over each other,
which is what chance does. Server, a minute: the journal's processor time as a share of a core, its
start included.
"""

import argparse
import os
import resource
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from bench import ceiling, ratios, subjects
from bench.forks import forked
from steps.base.console import Console
from steps.run.engines.pace import Slow
from steps.run.journal import client

QPS = 100.0
KINDS = {"in LoadGen's process": None, "2 processes": 2}


class Unwatched:
    """In a Keeper's place."""

    def begin(self, moment: float) -> None:
        """Notes nothing."""

    def finish(self, slow: Sequence[tuple[int, Slow]]) -> None:
        """Knows nothing."""


@contextmanager
def unwatched(*arguments: object) -> Iterator[Unwatched]:
    yield Unwatched()


def run(config: Any, watched: bool, home: Path, console: Console) -> tuple[float, float]:
    """Samples per second, and processor time of the journal in s per s of the test; with engines in
    LoadGen's process, since it is that of all children."""
    inputs = subjects.artifacts(home / "artifacts", ceiling.SAMPLES)
    kept = client.kept if watched else unwatched
    with mock.patch.object(client, "kept", kept):
        measured = subjects.run(config, inputs, home, console)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = used.ru_utime + used.ru_stime
    return measured.samples_per_second, spent_s / measured.result.duration_s


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.journal")
    parser.add_argument("--queries", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in KINDS}
    for number in range(1, arguments.rounds + 1):
        columns = []
        for name, engines in KINDS.items():
            config = ceiling.settings("Offline", arguments.queries, 1e6, engines)
            watched = number % 3  # its place among three runs; the other two show what chance does
            took = [forked(partial(run, config, turn == watched))[0] for turn in range(3)]
            rate = took.pop(watched)
            found[name].append(rate / statistics.mean(took))
            columns.append(f"{name} {found[name][-1]:.3f} (chance {took[0] / took[1]:.3f})")
        print(f"{number}: {'; '.join(columns)}; load {os.getloadavg()[0]:.1f}", flush=True)
    queries = int(QPS * arguments.seconds)
    _, share = forked(partial(run, ceiling.settings("Server", queries, QPS, None), True))
    print(f"the journal takes {100 * share:.2f} % of a core over {arguments.seconds:g} s")
    ratios.keep("journal", "samples/s with the journal over those without", 0.98, found)


if __name__ == "__main__":
    main()
