"""The search on engines whose limits are known: how near it ends, and its cost.

Limits are found by trying every rate; the engines are simulated (bench/simulated_engine.py), in
virtual time and with LoadGen's own schedule. Beside the search stand bisection by runs of the
rules' length and LoadGen's FindPeakPerformance, from the same first guesses.

A kind's limit is known if the rates at which chance decides whether a run is valid span less than
one percent (Truth.known); this is determined before any search. For the other kinds no rate is the
limit to one percent: there a search must end among those rates.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from bench.queueing_kinds import KINDS
from bench.simulated_engine import Kind, SimulatedProber, full_run, play, tokens_of
from steps.base.errors import UserError
from steps.commands.tune.arrivals import arrivals
from steps.commands.tune.config import load
from steps.commands.tune.measure import METRICS, Probe, quantile
from steps.commands.tune.search import Search

STEP, NOISY_STEP = 0.002, 0.004
"""The distance of the exhaustive trial's rates: larger where each is tried many times."""

FIRST = 10.0
SEEDS = 24
COARSE = 0.01
REACH = 0.06
CHANCE = (0.1, 0.9)
"""Between these shares of valid runs, chance decides whether one is valid."""

KNOWN = 0.01
"""A limit is known if chance decides over less than this share of the rate."""

FIND_PEAK_PERCENTILE = 0.99
FIND_PEAK_DECIMALS = 1
"""LoadGen's server_find_peak_qps_decimals_of_precision, its default."""

FAR_GUESSES = (0.3, 3.0)
"""First guesses are at least and at most this many times the limit."""

SETTINGS = load().search

SHORT_S = 60.0
"""Length of FindPeakPerformance's runs when it gets short ones."""


@dataclass(frozen=True)
class Truth:
    """`limit`: the rate up to which more than half of the runs are valid, and above which fewer
    are. It is the rate whose claim "VALID up to here, not above" the fewest tried runs contradict,
    the highest of several. `highest`: the highest tried rate at which half of the runs are valid,
    regardless of lower ones: the same if validity only falls. `low`, `high`: the lowest rate at
    which fewer than nine runs in ten are valid, and the highest at which more than one in ten is.
    """

    limit: float
    highest: float
    low: float
    high: float

    @property
    def chance(self) -> float:
        """The share of the rate over which chance decides whether a run is valid."""
        return max(self.high / self.low - 1, 0.0)

    @property
    def known(self) -> bool:
        return self.chance < KNOWN

    def met(self, rate: float) -> bool:
        """Whether a rate is within 1 % of the limit; if unknown, where chance decides."""
        if self.known:
            return abs(rate / self.limit - 1) <= KNOWN
        return self.low <= rate <= self.high


def truth(kind: Kind) -> Truth:
    """Tries every rate within a few percent of a first bracket, each with several noises."""
    seeds, step = (range(SEEDS), NOISY_STEP) if _noisy(kind) else (range(1), STEP)
    low, high = FIRST, FIRST
    while full_run(kind, high, (9, 9), watched=False).valid:
        low, high = high, high * 1.3
    while not full_run(kind, low, (9, 9), watched=False).valid:
        low, high = low / 1.3, low
    while high / low > 1 + COARSE:
        middle = math.sqrt(low * high)
        held = full_run(kind, middle, (9, 9), watched=False).valid
        low, high = (middle, high) if held else (low, middle)
    rates = low * np.exp(np.arange(-REACH, REACH + COARSE, step))
    shares = np.array(
        [
            float(np.mean([full_run(kind, float(r), (9, s), watched=False).valid for s in seeds]))
            for r in rates
        ]
    )
    # What gainsays a limit at each rate: runs up to it that didn't hold, runs above that did.
    against = np.cumsum(1 - shares) + shares.sum() - np.cumsum(shares)
    best = np.flatnonzero(against <= against.min() + 1e-9)[-1]
    return Truth(
        limit=float(rates[best]),
        highest=float(rates[shares >= 0.5].max()),
        low=float(rates[shares < CHANCE[1]].min()),
        high=float(rates[shares > CHANCE[0]].max()),
    )


def _noisy(kind: Kind) -> bool:
    return bool(kind.behaviour.jitter or kind.behaviour.burst)


@dataclass(frozen=True)
class Found:
    """`rate` 0: none was found. `valid`: the verdict of a run of the rules' length at the rate."""

    rate: float
    valid: bool
    measured_s: float
    runs: int


def searched(kind: Kind, guess: float, seed: int, *, known: bool) -> Found:
    """By steps.commands.tune."""
    prober = SimulatedProber(kind, seed)
    traffic = (lambda queries: tokens_of(kind, queries, kind.length.seed)) if known else None
    search = Search(SETTINGS, kind.length, kind.limits, guess, traffic=traffic)
    steps = search.run()
    try:
        asked = next(steps)
        while True:
            asked = steps.send(prober.measure(asked))
    except StopIteration as stop:
        final = stop.value.final
        return Found(final.probe.rate, bool(final.valid), prober.measured_s, len(prober.probes))
    except UserError:
        return Found(0.0, False, prober.measured_s, len(prober.probes))


def bisected(kind: Kind, guess: float, seed: int) -> Found:
    """Search by runs of the rules' length: doubles or halves to a bracket, halves to 1 %."""
    return _bracketed(_Runs(kind, seed), guess, lambda low, high: high / low <= 1.01)


def find_peak(kind: Kind, guess: float, seed: int, seconds: float | None) -> Found:
    """LoadGen's mode: doubles from a valid rate, then halves to a tenth of a query per second. It
    judges by the p99 only. It gives up if the first rate isn't valid: then the user here halves it
    and starts again. `seconds`: min_duration with a sample set to match; None: the rules'.
    """
    found = _bracketed(
        _Runs(kind, seed, seconds, FIND_PEAK_PERCENTILE),
        guess,
        lambda low, high: high - low <= 10.0**-FIND_PEAK_DECIMALS,
    )
    if not found.rate:
        return found
    final = full_run(kind, found.rate, (seed, 999), watched=False)
    return Found(found.rate, bool(final.valid), found.measured_s, found.runs)


class _Runs:
    """Whole runs, as by a user who can't end one early; counts their time."""

    def __init__(
        self, kind: Kind, seed: int, seconds: float | None = None, percentile: float | None = None
    ) -> None:
        self.kind, self.seed, self.seconds, self.percentile = kind, seed, seconds, percentile
        self.measured_s, self.runs = 0.0, 0

    def holds(self, rate: float) -> bool:
        self.runs += 1
        kind = self.kind
        if self.seconds is None:
            run = full_run(kind, rate, (self.seed, self.runs), watched=False)
        else:
            queries = max(1, math.ceil(rate * self.seconds))
            probe = Probe(
                number=1, seed=0, rate=rate, queries=queries, final=False, allowed_misses=None
            )
            times = arrivals(kind.length.seed, rate, queries)
            rng = np.random.default_rng((self.seed, self.runs))
            tokens = tokens_of(kind, queries, kind.length.seed)
            run = play(kind, times, tokens, rng, probe, watched=False)
        self.measured_s += run.measured_s
        if self.percentile is None:
            return bool(run.valid)
        return all(
            quantile(run.samples.latencies(metric), self.percentile) <= kind.limits.of(metric)
            for metric in METRICS
        )


def _bracketed(runs: _Runs, guess: float, near: Callable[[float, float], bool]) -> Found:
    low, high = guess, guess
    if runs.holds(guess):
        high = 2 * low
        while runs.holds(high):
            low, high = high, 2 * high
    else:
        low = guess / 2
        while not runs.holds(low):
            low, high = low / 2, low
    while not near(low, high):
        middle = (low + high) / 2
        if runs.holds(middle):
            low = middle
        else:
            high = middle
    return Found(low, True, runs.measured_s, runs.runs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tune", description=__doc__)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--kind", action="append", help="name of a kind; default: all")
    parser.add_argument("--unknown", action="store_true", help="answers' lengths not known before")
    parser.add_argument(
        "--others", type=int, default=1000, help="searches of a kind that other methods make too"
    )
    parser.add_argument("--seed", type=int, default=0, help="of first guesses, bursts and jitter")
    parser.add_argument(
        "--off", type=float, help="first guesses are off by at most this share, as known ones are"
    )
    given = parser.parse_args()
    kinds = [kind for kind in KINDS if not given.kind or kind.name in given.kind]
    begun = time.monotonic()
    guesses = (1 - given.off, 1 + given.off) if given.off else FAR_GUESSES
    table = Table(
        kinds,
        given.searches,
        known=not given.unknown,
        others=given.others,
        guesses=guesses,
        seed=given.seed,
    )
    print(table.text())
    print(f"{time.monotonic() - begun:,.0f} s of this machine")


class Table:
    """All searches on all kinds, and their summary."""

    def __init__(
        self,
        kinds: list[Kind],
        searches: int,
        *,
        known: bool,
        others: int,
        guesses: tuple[float, float],
        seed: int,
    ) -> None:
        self.rows: list[list[object]] = []
        self.found: list[tuple[Truth, Found]] = []
        self.compared: list[tuple[Truth, Found]] = []
        self.others: dict[str, list[tuple[Truth, Found]]] = {}
        rng = np.random.default_rng(seed)
        self.seeds = range(1000 * seed, 1000 * (seed + 1))
        each = -(-searches // len(kinds))
        truths = [truth(kind) for kind in kinds]
        for kind, real in zip(kinds, truths, strict=True):
            print(f"{kind.name}: {real.limit:.2f}, chance over {real.chance:.1%}", flush=True)
        for kind, real in zip(kinds, truths, strict=True):
            count = min(each, searches - len(self.found))
            first = real.limit * np.exp(
                rng.uniform(math.log(guesses[0]), math.log(guesses[1]), count)
            )
            mine = [
                (real, searched(kind, float(guess), seed, known=known))
                for seed, guess in zip(self.seeds, first, strict=False)
            ]
            self.found += mine
            self._others(kind, real, first[:others])
            self.compared += mine[:others]
            self._row(kind, real, mine)
            print("   ".join(str(cell) for cell in self.rows[-1]), flush=True)

    def _others(self, kind: Kind, real: Truth, guesses: np.ndarray) -> None:
        methods: dict[str, Callable[[float, int], Found]] = {
            "bisection, rule length": lambda guess, seed: bisected(kind, guess, seed),
            "FindPeakPerformance, rule length": lambda g, seed: find_peak(kind, g, seed, None),
            "FindPeakPerformance, 60 s": lambda guess, seed: find_peak(kind, guess, seed, SHORT_S),
        }
        for name, method in methods.items():
            for seed, guess in zip(self.seeds, guesses, strict=False):
                self.others.setdefault(name, []).append((real, method(float(guess), seed)))

    def _row(self, kind: Kind, real: Truth, mine: list[tuple[Truth, Found]]) -> None:
        ratios = [found.rate / real.limit for _, found in mine]
        self.rows.append(
            [
                kind.name,
                f"{real.limit:.2f}",
                f"{real.chance:.1%}",
                "known" if real.known else f"{real.low:.2f} to {real.high:.2f}",
                len(mine),
                sum(abs(ratio - 1) <= 0.01 for ratio in ratios),
                sum(real.met(found.rate) for _, found in mine),
                f"{min(ratios):.4f}",
                f"{max(ratios):.4f}",
                sum(found.valid for _, found in mine),
                f"{np.mean([found.measured_s for _, found in mine]):,.0f}",
                f"{np.mean([found.runs for _, found in mine]):.1f}",
                sum(abs(found.rate / real.highest - 1) <= 0.01 for _, found in mine),
            ]
        )

    def text(self) -> str:
        heads = ["kind", "limit", "chance over", "limit is", "searches", "within 1 %", "met"]
        heads += ["least", "most", "VALID", "s each", "probes", "of highest"]
        parts = [tabulate(self.rows, headers=heads)]
        methods = {"steps.commands.tune, all": self.found}
        if self.others:
            methods["steps.commands.tune, the searches below"] = self.compared
        methods |= self.others
        heads = ["method", "searches", "within 1 %", "met", "VALID", "hours measured", "runs each"]
        for known in (True, False):
            rows = [
                self._sum(name, chosen)
                for name, found in methods.items()
                if (chosen := [pair for pair in found if pair[0].known is known])
            ]
            words = "known limits" if known else "no limit known to 1 %"
            parts.append(f"Kinds with {words}:\n{tabulate(rows, headers=heads)}" if rows else "")
        return "\n\n".join(parts)

    def _sum(self, name: str, found: list[tuple[Truth, Found]]) -> list[object]:
        return [
            name,
            len(found),
            f"{np.mean([abs(f.rate / real.limit - 1) <= 0.01 for real, f in found]):.1%}",
            f"{np.mean([real.met(f.rate) for real, f in found]):.1%}",
            f"{np.mean([f.valid for _, f in found]):.1%}",
            f"{sum(f.measured_s for _, f in found) / 3600:.1f}",
            f"{np.mean([f.runs for _, f in found]):.1f}",
        ]


if __name__ == "__main__":
    main()
