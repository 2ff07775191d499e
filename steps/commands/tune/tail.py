"""The highest rate at which a whole run should be valid, and how certain that is.

The fitted engine plays the whole schedule of a run; the latency at the share of queries that must
keep the limit is compared with it, TTFT and TPOT each by itself. Each probe is played again with
its own arrivals, answers and their slowdowns; the remaining error of the tail isn't chance, and
corrects the forecast. Chance in a run is drawn from the slowdowns of the probes' answers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from steps.commands.tune.arrivals import Length, arrivals
from steps.commands.tune.measure import (
    METRICS,
    NO_TAIL,
    Limits,
    Measurement,
    Metric,
    Samples,
    quantile,
)
from steps.commands.tune.model import Engine, fit
from steps.mlperf.early_stopping import needed_share

TAIL_QUERIES = 5
"""A probe's tail is read where this many queries are beyond it."""

PRIOR_DEVIATION: Mapping[Metric, float] = {"ttft": 0.5, "tpot": 0.1}
"""The fitted engine's error of the tail before any probe is compared with it, in ln."""

MODEL_DEVIATION: Mapping[Metric, float] = {"ttft": 0.2, "tpot": 0.01}
"""Its error at a probe's own rate, in ln: a queue's tail is far more sensitive to what the model
omits than the pace of decoding.
"""

RATE_DEVIATION: Mapping[Metric, float] = {"ttft": 1.5, "tpot": 0.3}
"""Its error per ln of distance from a probe's rate, in ln."""

WHOLE_RUN = 0.2
"""The part of it that remains for a run of the rules' length, whose own queries are played again.
"""

SHORT, DRAWS, MORE_DRAWS = 4000, 2, 5
"""How often the engine plays traffic that isn't known: less often where it is long."""

SURE = 0.005
"""With a coarser required precision of the limit, in ln, slowdowns are drawn once."""

ASIDE = 0.01
"""The slope is taken between two rates this far apart, in ln."""

UNSEEN = 0.5
"""What a run's worth of answers leaves open of how chance moves the tail, as a share of that
variance."""

ROOT_TOLERANCE = 0.0015
STEP = 0.06
MOST_STEPS = 60
FLAT = 0.3
"""An excess so small a part of the tolerance is the limit: no tail rises more slowly."""

CEILING = math.log(4.0)
"""How far above the highest tried rate a limit is searched."""

LITTLE = 1e-3
FLOOR = math.log(20.0)
"""And how far below the lowest, or below one that kept the limits."""

BELOW_KEPT = 0.4


Traffic = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Forecast:
    """`limit` in queries a second: half of the runs are valid there; `deviation` is its standard
    deviation in ln, `noise` that of single runs.

    `metric` is the one that binds there, `slope` how many percent its tail rises per percent of
    rate.
    """

    limit: float
    deviation: float
    noise: float
    metric: Metric
    slope: float

    @property
    def hoped(self) -> float:
        """A deviation above the limit."""
        return self.limit * math.exp(self.deviation)

    def between(self, held: float, failed: float) -> "Forecast":
        """The same, knowing that the limit is above one rate and below another: the mean and
        deviation of what is left of the normal distribution."""
        mean, deviation = math.log(self.limit), self.deviation
        low = (math.log(held) - mean) / deviation if held else -math.inf
        high = (math.log(failed) - mean) / deviation if math.isfinite(failed) else math.inf
        left = normal_cdf(high) - normal_cdf(low)
        if left < LITTLE:  # the model was wrong: only the runs are left to go by
            inside = math.sqrt(held * failed) if held else failed * (1 - 2 * deviation)
            inside = inside if math.isfinite(inside) else held * (1 + 2 * deviation)
            return replace(self, limit=inside)
        peaks = _density(low), _density(high)
        shift = (peaks[0] - peaks[1]) / left
        edges = [_weighted(x, p) for x, p in zip((low, high), peaks, strict=True)]
        variance = max(1 + (edges[0] - edges[1]) / left - shift**2, LITTLE)
        return replace(
            self,
            limit=math.exp(mean + deviation * shift),
            deviation=deviation * math.sqrt(variance),
        )


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _weighted(x: float, density: float) -> float:
    return x * density if math.isfinite(x) else 0.0


def _density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class _Look:
    """One probe's evidence on one metric: ln of observed over modelled tail, and its variance."""

    log_rate: float
    difference: float
    variance: float
    scale: float


class Forecaster:
    """Forecasts from the probes so far.

    `traffic`: tokens of each answer of a run of so many queries, if every sample's are known from
    an earlier run.
    """

    def __init__(
        self,
        length: Length,
        limits: Limits,
        probes: Sequence[Measurement],
        traffic: Traffic | None = None,
    ) -> None:
        self._length = length
        self._limits = limits
        answers = None if traffic is None else traffic(length.sample_count)
        self._engine = fit([probe.samples for probe in probes], answers)
        self._traffic = traffic
        self._exact = True
        self._whole = {
            len(p.samples): p.samples.tokens
            for p in probes
            if p.probe.final and p.ended == "complete"
        }
        self._highest = max((math.log(p.probe.rate) for p in probes), default=0.0)
        self._floor = self._least(probes)
        self._looks: dict[Metric, list[_Look]] = {metric: [] for metric in METRICS}
        if self._engine is not None:
            for probe, own in zip(probes, self._engine.own, strict=True):
                self._look(self._engine, probe, own)

    def _least(self, probes: Sequence[Measurement]) -> float:
        """ln of the rate below which the limit isn't looked for.

        A little below the highest probe whose tails kept the limits, unless a whole run failed
        there; the model isn't valid for much lower rates.
        """
        failed = [p.probe.rate for p in probes if p.probe.final and not p.valid]
        kept = [
            probe.probe.rate
            for probe in probes
            if probe.ended == "complete"
            and len(probe.samples) >= 4 * TAIL_QUERIES
            and all(probe.tail(metric) <= self._limits.of(metric) for metric in METRICS)
        ]
        if kept:
            return math.log(min([max(kept), *failed])) - BELOW_KEPT
        return math.log(min((p.probe.rate for p in probes), default=1.0)) - FLOOR

    def _look(self, engine: Engine, measured: Measurement, own: np.ndarray) -> None:
        """Compare the engine with one probe's tail, using the probe's own slowdowns. For a run that
        was ended because it could no longer be VALID, the answered part.
        """
        samples, final = measured.samples, measured.probe.final
        which: np.ndarray = np.ones(len(samples), dtype=bool)
        if measured.ended == "futile":
            which = ~np.isnan(samples.completed)
        count = int(which.sum())
        if measured.ended in NO_TAIL or count < 4 * TAIL_QUERIES:
            return
        rate = measured.probe.rate
        share = min(needed_share(self._length.queries(rate)), 1 - TAIL_QUERIES / count)
        tokens = self._tokens(len(samples)) if final else None
        if tokens is None:
            typical: np.ndarray = np.resize(engine.tokens, len(samples))
            tokens = np.where(samples.tokens > 1, samples.tokens, typical)
        played = [engine.play(samples.arrived, np.random.default_rng(0), tokens, own)]
        scale = WHOLE_RUN if final and measured.ended == "complete" else 1.0
        for metric in METRICS:
            observed = math.log(max(quantile(samples.latencies(metric)[which], share), 1e-9))
            modelled = _log_tails(played, metric, share, which)
            variance = (scale * MODEL_DEVIATION[metric]) ** 2
            self._looks[metric].append(
                _Look(math.log(rate), observed - float(modelled.mean()), variance, scale)
            )

    def _tokens(self, queries: int) -> np.ndarray | None:
        """Tokens of each answer of a whole run, if known."""
        if queries in self._whole:
            return self._whole[queries]
        return self._traffic(queries) if self._traffic else None

    def _played(
        self, engine: Engine, arrived: np.ndarray, tokens: np.ndarray | None
    ) -> list[Samples]:
        draws = MORE_DRAWS
        if tokens is None:
            draws = DRAWS if len(arrived) > SHORT else MORE_DRAWS
        elif engine.steady or not self._exact:
            draws = 1
        return [engine.play(arrived, np.random.default_rng(draw), tokens) for draw in range(draws)]

    def forecast(self, near: float, tolerance: float = ROOT_TOLERANCE) -> Forecast | None:
        """The forecast, searched up and down from a rate; None before anything is known."""
        if self._engine is None:
            return None
        self._exact = tolerance < SURE
        low = self._root(self._engine, math.log(near), tolerance)
        excess, metric, variance, noise = self._excess(self._engine, low)
        # Aside of where another copy of the samples makes the run another.
        same = self._length.queries(math.exp(low + ASIDE)) == self._length.queries(math.exp(low))
        aside = ASIDE if same else -ASIDE
        slope = max((self._excess(self._engine, low + aside)[0] - excess) / aside, 0.3)
        deviation = math.hypot(
            math.sqrt(variance) / slope, self._unsure_of_answers(), self._engine.unsure
        )
        return Forecast(
            limit=math.exp(low),
            deviation=max(deviation, tolerance),
            noise=math.sqrt(noise) / slope,
            metric=metric,
            slope=slope,
        )

    def _unsure_of_answers(self) -> float:
        """Standard error of the mean answer, in ln: longer answers are that much less rate."""
        tokens = self._engine.tokens if self._engine else np.ones(1)
        if self._traffic or self._whole:
            return 0.0
        return float(tokens.std() / tokens.mean() / math.sqrt(len(tokens)))

    def _root(self, engine: Engine, start: float, tolerance: float) -> float:
        """ln of the modelled limit, rounded down; the ceiling if it is above that.

        By false position (Illinois), within the first bracket around the start.
        """
        ceiling = self._highest + CEILING
        here = min(start, ceiling)
        value, step = self._excess(engine, here)[0], STEP / 2
        up = value <= 0
        for _ in range(MOST_STEPS):
            if (up and here >= ceiling) or (not up and here <= self._floor):
                return here
            before, old = here, value
            here = min(here + step, ceiling) if up else max(here - step, self._floor)
            value, step = self._excess(engine, here)[0], 2 * step
            if (value <= 0) != up:
                break
        low, below, high, above = (before, old, here, value) if up else (here, value, before, old)
        for _ in range(MOST_STEPS):
            if high - low <= tolerance:
                break
            share = min(max(below / (below - above), 0.05), 0.95)
            middle = low + share * (high - low)
            value = self._excess(engine, middle)[0]
            if abs(value) < FLAT * tolerance:
                return middle
            if value <= 0:
                low, below, above = middle, value, above / 2
            else:
                high, above, below = middle, value, below / 2
        return low

    def _excess(self, engine: Engine, log_rate: float) -> tuple[float, Metric, float, float]:
        """ln of tail over limit of the metric that is worse, which it is, the variance of that, and
        the variance from run to run."""
        rate = math.exp(log_rate)
        count = self._length.queries(rate)
        times = arrivals(self._length.seed, rate, count)
        tokens = self._tokens(count)
        played = self._played(engine, times, tokens)
        found: list[tuple[float, Metric, float, float]] = []
        for metric in METRICS:
            tails = _log_tails(played, metric, needed_share(count))
            factor, variance = self._factor(metric, log_rate)
            excess = float(tails.mean()) + factor - math.log(self._limits.of(metric))
            # All runs have the same traffic: if it isn't known yet, they all are off alike.
            scatter = _variance(tails)
            open_traffic = scatter if tokens is None else scatter / len(tails)
            # What slows answers was seen in so many of them only.
            open_traffic += UNSEEN * scatter * count / len(engine.pace_factors)
            noise = 0.0 if tokens is None else scatter
            found.append((excess, metric, variance + open_traffic, noise))
        return max(found)

    def _factor(self, metric: Metric, log_rate: float) -> tuple[float, float]:
        """ln of the correction at a rate, and its variance: larger if probes contradict it."""
        looks = [_Look(log_rate, 0.0, PRIOR_DEVIATION[metric] ** 2, 0.0), *self._looks[metric]]
        away = [RATE_DEVIATION[metric] * x.scale * (x.log_rate - log_rate) for x in looks]
        trust = np.array([1 / (x.variance + far**2) for x, far in zip(looks, away, strict=True)])
        said = np.array([look.difference for look in looks])
        mean = float(trust @ said) / float(trust.sum())
        disagree = float(trust @ (said - mean) ** 2) / max(len(looks) - 1, 1)
        return mean, max(disagree, 1.0) / float(trust.sum())


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _log_tails(
    played: Sequence[Samples],
    metric: Metric,
    share: float,
    which: np.ndarray | slice = slice(None),
) -> np.ndarray:
    tails = [quantile(samples.latencies(metric)[which], share) for samples in played]
    result: np.ndarray = np.log(np.maximum(tails, 1e-9))
    return result
