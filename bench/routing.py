"""Server on engines of several speeds: the highest valid rate, over that of one pool of places.

In virtual time, with the fleet's own dispatcher: whole runs of the rules' length and LoadGen's
early stopping in seconds, and no pause of the machine decides a 99th percentile. bench.ceiling
measures what messages and processes add.

The measure is one engine with all places at the mean speed: the next query gets any free place, so
a router can only do better by picking fast places. The sum of the engines' own rates isn't such a
measure: other engines take a burst that one engine alone would queue, so the whole serves more than
its parts with any router.
"""

import argparse
import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from bench import ratios
from bench.scaling import GENERATIONS, HAND_WEIGHTS, JITTER, speeds_of
from bench.subjects import OUTPUT_LIMIT, OUTPUT_SIGMA, OUTPUT_TOKENS
from steps.commands.tune.arrivals import arrivals
from steps.mlperf.early_stopping import allowed_misses
from steps.run.engines.engine import Batch
from steps.run.sut.dispatch import Dispatcher, Replica, Samples

PLACES = 128
TTFT_S, TPOT_S = 0.2, 0.06
"""TTFT and TPOT of an engine of speed 1 with all places taken: about Llama 2 70B's on one GPU."""

LIMIT_S = 2.0
"""Limit of the time to first token (v5.1, llama2-70b Server)."""

DURATION_S = 600.0
PROMPT_TOKENS = 145
PRECISION = 0.0025

Dispatchers = Callable[..., Dispatcher]


def by_turns(weights: Sequence[float]) -> type[Dispatcher]:
    """Queries go to engines in turn, each as often as its weight says, free or not."""

    class Turns(Dispatcher):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            self._had = [0] * len(weights)

        def _routed(self) -> dict[int, Samples]:
            """One is pending at a time."""
            n = min(range(len(weights)), key=lambda n: (self._had[n] + 1) / weights[n])
            self._had[n] += 1
            return {n: self.next(1)}

    return Turns


@dataclass
class Engine:
    """Places of one speed, which changes from second to second by ± JITTER."""

    places: int
    speed: float
    seed: str
    jitter: float
    running: int = 0
    waiting: deque[int] = field(default_factory=deque)

    def speed_at(self, now: float) -> float:
        if not self.jitter:
            return self.speed
        draw = random.Random(f"{self.seed}/{int(now)}")
        return self.speed * draw.uniform(1 - self.jitter, 1 + self.jitter)


def misses(
    engines: Sequence[Engine], dispatchers: Dispatchers, rate: float, queries: int, seed: int
) -> int:
    """Queries that wait longer than the limit for their first token, of one run."""
    moments: list[float] = arrivals(seed, rate, queries).tolist()
    draw = np.random.default_rng(seed)
    lognormal = draw.lognormal(
        np.log(OUTPUT_TOKENS) - OUTPUT_SIGMA**2 / 2, OUTPUT_SIGMA, size=queries
    )
    lengths: list[int] = np.clip(np.rint(lognormal), 2, OUTPUT_LIMIT).astype(int).tolist()
    replicas = [Replica(engine.places, 0, engine.speed / TPOT_S) for engine in engines]
    dispatcher = dispatchers(replicas, [PROMPT_TOKENS], prompt_weight=0.02, latency_bound=True)
    events: list[tuple[float, int, int, int]] = [
        (moment, 0, number, 0) for number, moment in enumerate(moments)
    ]
    missed = 0

    def begin(n: int, number: int, now: float) -> None:
        nonlocal missed
        engine = engines[n]
        engine.running += 1
        speed = engine.speed_at(now)
        first = now + TTFT_S / speed
        missed += first - moments[number] > LIMIT_S
        heapq.heappush(events, (first, 1, number, n))
        heapq.heappush(events, (first + (lengths[number] - 1) * TPOT_S / speed, 2, number, n))

    while events:
        now, kind, number, n = heapq.heappop(events)
        if kind == 0:
            dispatcher.add([number], [0])
        elif kind == 1:
            dispatcher.started(n, Batch([number], [1]))
            continue
        else:
            dispatcher.completed(n, Batch([number], [lengths[number]]), now)
            engines[n].running -= 1
            if engines[n].waiting:
                begin(n, engines[n].waiting.popleft(), now)
        for m, (numbers, _) in dispatcher.assign(now).items():
            for given in numbers:
                if engines[m].running < engines[m].places:
                    begin(m, given, now)
                else:
                    engines[m].waiting.append(given)
    return missed


def highest_qps(make: Callable[[], list[Engine]], dispatchers: Dispatchers, seed: int) -> float:
    """The highest rate at which a run of the rules' length is valid, by bisection."""
    mean_s = TTFT_S + (OUTPUT_TOKENS - 1) * TPOT_S
    full = sum(engine.places * engine.speed for engine in make()) / mean_s
    low, high = 0.6 * full, 1.1 * full

    def holds(rate: float) -> bool:
        queries = int(rate * DURATION_S)
        return misses(make(), dispatchers, rate, queries, seed) <= allowed_misses(queries)

    if not holds(low):
        return 0.0
    while high / low > 1 + PRECISION:
        rate = (low * high) ** 0.5
        low, high = (rate, high) if holds(rate) else (low, rate)
    return low


def fleet(seed: int) -> list[Engine]:
    speeds = speeds_of(GENERATIONS, seed)
    return [Engine(PLACES, speed, f"{seed}/{n}", JITTER) for n, speed in enumerate(speeds)]


def pool(seed: int) -> list[Engine]:
    speeds = speeds_of(GENERATIONS, seed)
    return [Engine(PLACES * len(speeds), sum(speeds) / len(speeds), "", 0)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.routing")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(
        f"Server in virtual time, {len(GENERATIONS)} engines {GENERATIONS}, each ±{JITTER:.0%} for "
        f"good and from second to second; highest valid queries/s over that of one pool"
    )
    kinds: dict[str, type[Dispatcher]] = {
        "ours": Dispatcher,
        "hand weights in turn": by_turns(HAND_WEIGHTS),
        "in turn": by_turns([1] * len(GENERATIONS)),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(1, arguments.rounds + 1):
        best = highest_qps(partial(pool, number), Dispatcher, number)
        for name, kind in kinds.items():
            rate = highest_qps(partial(fleet, number), kind, number)
            found[name].append(rate / best)
        listed = "; ".join(f"{name} {values[-1]:.3f}" for name, values in found.items())
        print(f"{number}: pool {best:.1f} queries/s; {listed}", flush=True)
    ratios.keep("server-mixed", "highest valid queries/s over one pool's", 0.97, found)


if __name__ == "__main__":
    main()
