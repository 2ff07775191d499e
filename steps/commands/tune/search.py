"""The search: which probe next, when to confirm, when it is done. It makes no probe itself. A
search is a generator: it yields the probe that it wants and gets its measurements. Given the same
measurements it asks for the same probes, so a killed search resumes by replaying its journal.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass, field, replace

from steps.base.errors import UserError
from steps.commands.tune.arrivals import Length
from steps.commands.tune.concurrency import Concurrency
from steps.commands.tune.config import SearchSettings
from steps.commands.tune.infeasible import InfeasibleError, infeasible, unlikely
from steps.commands.tune.measure import METRICS, Limits, Measurement, Metric, Probe
from steps.commands.tune.request import OUT_OF_BUDGET
from steps.commands.tune.tail import Forecast, Forecaster, Traffic, normal_cdf
from steps.mlperf.early_stopping import allowed_misses

DIGITS = 4
"""Significant digits of a rate: finer than any limit is known."""

COARSE, FINE = 0.01, 0.0015
"""How exactly the expected limit is computed while exploring, and later, in ln."""

LEAP = 8.0
"""How far to go from a rate that shows nothing."""

FLOODED = 1.35
"""How far beyond the expected limit an engine is probed once, to measure it when full."""

FEW_MISSES = 0.02
MANY_MISSES = 0.10
NEAR, BRACKET = 0.8, 1.6
"""Exploring ends when a valid rate was measured at this share of the expected limit, and an invalid
one at this many times that rate. The limit isn't below that share of a valid rate.
"""

FORGOTTEN = 0.6
"""A run that moved the forecast far showed the model to err: for the next runs, by half as much and
by this share less each time, the forecast is held for no surer than that. Runs that fail one after
another show the same: each doubles the doubt, from the tolerance; and the earlier in its course a
run was lost, the farther beyond the limit it was."""

BELOW = 0.5
"""A run is tried at most this many tolerances below the expected limit: if valid there, it
suffices.
"""

CLIFF, CLIFF_STEPS = 60.0, 1.5
"""A tail that rises this many percent per percent of rate doesn't show how far the limit is: runs
go this many tolerances further until one fails.
"""

LEAST_EXPLORED = 0.125
"""A small budget shortens a first probe to no less than this share of explore_s: a shorter one gets
too few answers.
"""

CUT = 1.2
"""With a small budget, a probe waits for its last answers until this many times its schedule has
passed.
"""

UNSURE = 0.5
"""If runs are valid by chance, another one is worthwhile while the limit may be this many
deviations higher.
"""

CHANCE = 1.5
"""A run may be valid or not this many deviations of chance from the rate where half of them are."""


@dataclass(frozen=True)
class Outcome:
    """`final` is the VALID run; `limit` the forecast for higher rates.

    `stopped` says why no further run was made.
    """

    final: Measurement
    limit: Forecast
    stopped: str


@dataclass
class Search:
    """One scenario's search.

    `budget_s` covers measured time and starts, what other searches spent of the same budget
    (`elsewhere_s`), and the time in which nothing was measured (`between_s`); None: no bound.
    """

    settings: SearchSettings
    length: Length
    limits: Limits
    guess: float
    budget_s: float | None = None
    traffic: Traffic | None = None
    elsewhere_s: float = 0.0
    between_s: float = 0.0
    exploring: bool = True
    bracketed: bool = False
    probes: list[Measurement] = field(default_factory=list)
    best: Measurement | None = None
    kept: float = 0.0
    lowest_failed: float = math.inf
    surprise: float = 0.0
    moved: float = 0.0
    failed_in_row: int = 0
    how_far: float = 1.0
    forecast: Forecast | None = None

    @property
    def spent_s(self) -> float:
        return sum(probe.measured_s + probe.start_s for probe in self.probes)

    def run(self) -> Generator[Probe, Measurement, Outcome]:
        """Yields probes, returns the outcome. Raises InfeasibleError, or UserError if the budget is
        too small for one run of the rules' length.
        """
        yield from self._explore()
        self.exploring = False
        if not self.probes or (self.budget_s is not None and self.forecast is None):
            raise self._no_room()
        self.forecast = self._forecast()
        yield from self._refine()
        return (yield from self._confirm())

    def appraise(self, beat: float) -> Generator[Probe, Measurement, Forecast]:
        """Like `run`, but only explores: returns the expected limit. It ends at once if the engine
        is overloaded at `beat`, the limit of another one (0: none), and can't become as good.
        """
        yield from self._explore(beat)
        return self._known()

    # ---- probes ----------------------------------------------------------------------------------

    def _probe(self, rate: float, seconds: float) -> Generator[Probe, Measurement, Measurement]:
        rate = rounded(rate)
        queries = max(4, math.ceil(rate * seconds))
        asked = Probe(
            number=len(self.probes) + 1,
            seed=self.length.seed + len(self.probes) + 1,
            rate=rate,
            queries=queries,
            final=False,
            allowed_misses=None,
        )
        return (yield from self._made(asked))

    def _final(self, rate: float) -> Generator[Probe, Measurement, Measurement]:
        rate = rounded(rate)
        queries = self.length.queries(rate)
        asked = Probe(
            number=len(self.probes) + 1,
            seed=self.length.seed,
            rate=rate,
            queries=queries,
            final=True,
            allowed_misses=max(allowed_misses(queries), 0),
        )
        return (yield from self._made(asked))

    def _made(self, asked: Probe) -> Generator[Probe, Measurement, Measurement]:
        measured = yield asked
        self.probes.append(measured)
        before, self.forecast = self.forecast, self._forecast()
        self.surprise *= FORGOTTEN
        if asked.final and before and self.forecast:
            self.moved = abs(math.log(self.forecast.limit / before.limit))
            self.surprise = max(self.surprise, self.moved / 2)
        return measured

    def _forecast(self) -> Forecast | None:
        near = self.forecast.limit if self.forecast else self.probes[-1].probe.rate
        forecaster = Forecaster(self.length, self.limits, self.probes, self.traffic)
        found = forecaster.forecast(near, COARSE if self.exploring else FINE)
        least = NEAR * min(self.kept, self.lowest_failed)
        return replace(found, limit=max(found.limit, least)) if found else None

    # ---- first: the order of magnitude, and the engine when full ---------------------------------

    def _explore(self, beat: float = 0.0) -> Generator[Probe, Measurement, None]:
        high, rate = math.inf, self.guess
        for _ in range(self.settings.explore_limit):
            seconds = self._explorable_s()
            if seconds is None:
                return
            measured = yield from self._probe(rate, seconds)
            share = measured.missed_share(self.limits)
            if measured.ended == "overload" or share > MANY_MISSES:
                high = min(high, measured.probe.rate)
                self._refuse_infeasible(measured)
            elif share <= FEW_MISSES:
                self.kept = max(self.kept, measured.probe.rate)
            expected = self.forecast.limit if self.forecast else None
            # A short probe of many nodes misses few even beyond the limit, and again if repeated.
            if share > FEW_MISSES and expected and measured.probe.rate > expected:
                high = min(high, measured.probe.rate)
            if self.forecast and max(high, self.forecast.hoped) <= rounded(beat):
                return
            near = expected is not None and self.kept >= NEAR * min(expected, high)
            if near and high <= BRACKET * self.kept:
                self.bracketed = True
                return
            rate = self._next_rate(self.kept, high, expected, measured.probe.rate)
        raise UserError(
            f"after {self.settings.explore_limit} probes between "
            f"{min(p.probe.rate for p in self.probes):g} and "
            f"{max(p.probe.rate for p in self.probes):g} queries a second the engine's limit is "
            "still not bracketed: its latencies don't rise with the rate; see the journal's probes"
        )

    def _explorable_s(self) -> float | None:
        """Seconds of schedule; None if a probe leaves no time for a run after it.

        Half of what that run leaves: one probe shows little, and an engine beyond its limit
        takes longer to answer than the schedule. Before the first one, the time of the engine's
        starts isn't known.
        """
        if self.budget_s is None:
            return self.settings.explore_s
        limit = self.forecast.limit if self.forecast else math.inf
        run_s = self.length.duration_s(limit) if self.forecast else self.length.min_duration_s
        start_s, drain_s = self._start_s(), self._drain_s()
        room_s = self._left_s() - (run_s + drain_s + start_s) - (drain_s + start_s)
        room_s /= 2 if self.probes else 3
        least_s = LEAST_EXPLORED * self.settings.explore_s
        return min(room_s, self.settings.explore_s) if room_s >= least_s else None

    def cut_s(self, asked: Probe) -> float | None:
        """When a probe is ended, with any number of answers missing; None: when all have come. A
        run is never cut: it wouldn't be a result.
        """
        if self.budget_s is None or asked.final:
            return None
        near = self.forecast.limit if self.forecast else asked.rate
        after_s = self.length.duration_s(near) + self._drain_s() + 2 * self._start_s()
        return max(CUT * asked.queries / asked.rate, (self._left_s() - after_s) / 2)

    def _next_rate(self, low: float, high: float, expected: float | None, last: float) -> float:
        if not math.isfinite(high):
            flood = FLOODED * expected if expected else LEAP * last
            return min(max(flood, FLOODED * last), LEAP * last)
        if not low:
            return min(max(0.9 * (expected or 0.0), high / LEAP), high / 2)
        inside = max(0.9 * expected, low ** (2 / 3) * high ** (1 / 3)) if expected else math.inf
        if expected and low >= NEAR * expected:
            inside = FLOODED * expected
        if not 1.02 * low < inside < 0.98 * high:
            inside = math.sqrt(low * high)
        return inside

    def _refuse_infeasible(self, measured: Measurement) -> None:
        """Raises InfeasibleError if limits are missed although the engine is as good as idle."""
        samples = measured.samples
        view = Concurrency.of(samples)
        spans = view.times[1:] - view.times[:-1]
        busy = float((view.running[:-1] * spans).sum() / max(spans.sum(), 1e-9))
        if busy > self.settings.idle_running or measured.ended != "complete":
            return
        for metric in METRICS:
            missed = samples.missed(metric, self.limits.of(metric), math.inf)
            if unlikely(int(missed.sum()), len(samples)):
                raise InfeasibleError(infeasible(measured, metric, self.limits))

    # ---- then: as sure as is worth its time ------------------------------------------------------

    def _refine(self) -> Generator[Probe, Measurement, None]:
        for _ in range(self.settings.refine_limit):
            forecast = self._known()
            seconds = self._worth(forecast)
            if seconds is None:
                return
            back = min(forecast.deviation, 0.05)
            yield from self._probe(forecast.limit * (1 - back), seconds)

    def _worth(self, forecast: Forecast) -> float | None:
        """The length of the probe that saves most, None if none saves its cost. A run of the rules'
        length at the expected limit must be repeated if the limit is farther off than the
        tolerance. What a probe saves is how much less likely that is after it.
        """
        run_s = self.length.duration_s(forecast.limit)
        best, best_gain = None, 0.0
        for seconds in self.settings.refine_s:
            if seconds > 0.6 * run_s or not self._affords(seconds, run_s):
                continue
            again = _misses(forecast.deviation, self.settings.tolerance)
            # So long a probe alone would know the limit this well: as whole runs do, by length.
            own = 2 * self.settings.tolerance * math.sqrt(run_s / seconds)
            both = 1 / math.sqrt(1 / forecast.deviation**2 + 1 / own**2)
            gain = (again - _misses(both, self.settings.tolerance)) * run_s - seconds
            if gain > best_gain:
                best, best_gain = seconds, gain
        return best

    # ---- last: runs of the rules' length ---------------------------------------------------------

    def _confirm(self) -> Generator[Probe, Measurement, Outcome]:
        stopped = f"{self.settings.confirm_limit} runs were made"
        for _ in range(self.settings.confirm_limit):
            forecast = self._known()
            run_s = self.length.duration_s(forecast.limit)
            if not self._affords(run_s):
                stopped = OUT_OF_BUDGET
                break
            if self.best and self._headroom(forecast) <= self.settings.tolerance:
                stopped = "within the tolerance of the limit"
                break
            aim = self._aim(forecast, run_s)
            rate = self._quick_enough(aim, max(aim, forecast.limit))
            if not self._affords(self.length.duration_s(rate)):
                stopped = OUT_OF_BUDGET
                break
            yield from self._run(rate)
        if self.best is None:
            raise self._nothing_held(stopped)
        return Outcome(self.best, self._known(), stopped)

    def _quick_enough(self, rate: float, most: float) -> float:
        """The rate, or the next above it at which there is time for a run, for fewer queries a
        second take longer; above `most` if there is none up to it."""
        while rate <= most and not self._affords(self.length.duration_s(rate)):
            rate *= 1 + self.settings.tolerance
        return rate

    def _run(self, rate: float) -> Generator[Probe, Measurement, None]:
        measured = yield from self._final(rate)
        self.failed_in_row = 0 if measured.valid else self.failed_in_row + 1
        whole_s = self.length.duration_s(measured.probe.rate)
        self.how_far = min(measured.measured_s / whole_s, 1.0)
        if measured.valid:
            if self.best is None or measured.probe.rate > self.best.probe.rate:
                self.best = measured
        else:
            self.lowest_failed = min(self.lowest_failed, measured.probe.rate)

    def _aim(self, forecast: Forecast, run_s: float) -> float:
        last = not self.best and not self._affords(run_s, 1.2 * run_s)
        tolerance, chancy = self.settings.tolerance, self._chancy(forecast)
        below = self.settings.caution * forecast.deviation
        if last:
            unsure = math.hypot(forecast.deviation, forecast.noise)
            below = self.settings.caution_last * unsure
        elif not chancy:
            below = min(below, BELOW * tolerance)
        rate = min(forecast.limit * math.exp(-below), self._failed() * (1 - tolerance / 2))
        if last and self.kept and not self.bracketed:
            rate = min(rate, BRACKET * self.kept)  # no time to see how far the model may be trusted
        if self.best is not None:
            rate = max(rate, self.best.probe.rate * (1 + tolerance / 2))
            if forecast.slope > CLIFF and math.isinf(self.lowest_failed):
                rate = max(rate, self._beyond())
        return rate

    def _held(self) -> float:
        """The limit is above this rate, as valid runs show."""
        assert self.forecast is not None
        held = self.best.probe.rate if self.best else 0.0
        return held * math.exp(-CHANCE * self.forecast.noise)

    def _failed(self) -> float:
        """The limit is below this rate, as invalid runs show."""
        assert self.forecast is not None
        return self.lowest_failed * math.exp(CHANCE * self.forecast.noise)

    def _headroom(self, forecast: Forecast) -> float:
        """The possible gain of a higher rate, in ln: the model's, below rates that failed.

        A model that the last run moved upwards may move again.
        """
        assert self.best is not None and self.forecast is not None
        sober = self.forecast.between(self._held(), self._failed())
        room = math.log(min(forecast.limit, sober.limit) / self.best.probe.rate)
        if math.isinf(self.lowest_failed):
            room = max(room, self.moved - self.settings.tolerance / 2)
        if self._chancy(forecast):
            room += UNSURE * forecast.deviation
        if forecast.slope > CLIFF and self.lowest_failed > self._beyond():
            room = max(room, CLIFF_STEPS * self.settings.tolerance)
        return room

    def _beyond(self) -> float:
        """The next rate worth a run at a cliff."""
        assert self.best is not None
        return self.best.probe.rate * math.exp(CLIFF_STEPS * self.settings.tolerance)

    def _chancy(self, forecast: Forecast) -> bool:
        """Whether, farther than the tolerance from the limit, chance decides if a run is valid."""
        return forecast.noise > self.settings.tolerance

    def _affords(self, *seconds: float) -> bool:
        """Whether there is time for probes or runs of so many seconds of schedule each."""
        each_s = self._start_s() + self._drain_s()
        return sum(seconds) + each_s * len(seconds) <= self._left_s()

    def _left_s(self) -> float:
        if self.budget_s is None:
            return math.inf
        return self.budget_s - self.elsewhere_s - self.between_s - self.spent_s

    def _start_s(self) -> float:
        """The longest so far. The first one's engines may have compiled kernels, and been sent
        weights, which isn't done twice."""
        return max((p.start_s for p in self.probes[1:] or self.probes), default=0.0)

    def _drain_s(self) -> float:
        """The longest time for the last answers at a rate that the engine can keep up with."""
        return max(
            (
                max(p.measured_s - float(p.samples.arrived[-1]), 0.0)
                for p in self.probes
                if p.ended == "complete" and p.missed_share(self.limits) <= MANY_MISSES
            ),
            default=0.0,
        )

    def _known(self) -> Forecast:
        if self.forecast is None:
            raise UserError(
                "the probes got too few answers to show how fast the engine is; start it from "
                "a lower rate, or raise explore_s in conf/tune.yaml"
            )
        if math.isinf(self.lowest_failed):
            return self.forecast.between(self._held(), math.inf)
        doubt = self.settings.tolerance * 2.0 ** (self.failed_in_row - 1) / self.how_far
        if self._chancy(self.forecast):
            doubt = 0.0  # runs may fail one after another by chance
        deviation = max(self.forecast.deviation, self.surprise, doubt)
        return replace(self.forecast, deviation=deviation).between(self._held(), self._failed())

    def _no_room(self) -> UserError:
        if not self.probes:
            return UserError(
                f"the budget is {self._left_s():,.0f} s and a run takes "
                f"{self.length.min_duration_s:,.0f} s at least, the engine's start and one probe "
                "come before it; raise --budget"
            )
        return UserError(
            f"the budget is spent: {self.spent_s:,.0f} s went into probes that brought too few "
            "answers to tell how fast the engine is; raise --budget, or give a lower --guess"
        )

    def _nothing_held(self, stopped: str) -> UserError:
        finals = [p for p in self.probes if p.probe.final]
        if not finals:
            run_s = self.length.duration_s(self._known().limit)
            return UserError(
                f"the budget is spent: {self.spent_s:,.0f} s went into probes, and a run of the "
                f"rules' length takes {run_s:,.0f} s; raise --budget"
            )
        lowest = min(finals, key=lambda p: p.probe.rate)
        if stopped == OUT_OF_BUDGET:
            return UserError(
                f"the budget is spent, and no run held: the last one was at {lowest.probe.rate:g} "
                "queries a second; raise --budget"
            )
        metric: Metric = max(METRICS, key=lambda m: lowest.tail(m) / self.limits.of(m))
        return InfeasibleError(infeasible(lowest, metric, self.limits, "no run kept a limit of"))


def _misses(deviation: float, tolerance: float) -> float:
    """Probability that the limit is farther off than the tolerance."""
    return 2 * normal_cdf(-tolerance / deviation)


def rounded(rate: float) -> float:
    return float(f"{rate:.{DIGITS}g}")
