"""A model of an engine, fitted to probes, that plays the whole schedule of a run.

The model is a queue in front of `slots` places, or several, to which requests are dealt in turn. A
request with a place gets tokens at a pace that depends on how many have one; how a request deviates
from that pace is drawn from what was observed. It is fitted to single requests, hundreds a minute,
which is why it knows an engine sooner than the one request in a hundred that decides whether a run
is VALID. Where it errs in the tail, steps of steps/commands/tune/tail.py correct it by the tails
that probes had.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steps.commands.tune.concurrency import FEWEST, QUEUED, Concurrency
from steps.commands.tune.measure import Samples
from steps.commands.tune.pace import fit_pace
from steps.commands.tune.replicas import dealt, replica_count

STRETCH = 400
"""Deviations are drawn in stretches of this many consecutive requests: what slows one
answer slows those beside it."""

ALIKE = 20
"""A request deviates like one of this many before or after it in the stretch, the one whose answer
is nearest in length.
"""

STEADY = 0.005
"""Deviations from the pace are chance if they scatter by more."""

TOGETHER = 200
"""Answers this far apart weren't given at the same time."""

MOST_RUNNING = 1 << 14


@dataclass(frozen=True)
class Engine:
    """A fitted engine.

    `pace` holds the s per token with 0, 1, 2, ... running; each start costs all that run `stall`
    tokens. `start_s` and `start_per_running_s` are what the first token takes once a place is
    there, `start_gap_s` and `start_gap_per_running_s` what passes at least from one start to the
    next. `tokens`, `pace_factors` (with their answers' `factor_tokens`) and `start_factors` are
    observed: a request draws one of each. All of that goes for each of the engines to which
    requests are dealt in turn; they take `slowness` times as long. `own`: of each probe's requests,
    the pace factor, NaN where it isn't known.
    """

    pace: np.ndarray
    stall: float
    slots: float
    start_s: float
    start_per_running_s: float
    start_gap_s: float
    start_gap_per_running_s: float
    tokens: np.ndarray
    pace_factors: np.ndarray
    factor_tokens: np.ndarray
    start_factors: np.ndarray
    slowness: np.ndarray
    own: tuple[np.ndarray, ...]

    @property
    def steady(self) -> bool:
        """Whether equal requests take equally long."""
        return float(self.pace_factors.std()) < STEADY

    @property
    def unsure(self) -> float:
        """Standard error of the pace, in ln: by the means of answers that were given at a time."""
        parts = np.array_split(self.pace_factors, max(len(self.pace_factors) // TOGETHER, 2))
        return float(np.std([part.mean() for part in parts])) / math.sqrt(len(parts))

    @property
    def most(self) -> int:
        return int(min(self.slots, MOST_RUNNING))

    def play(
        self,
        arrived: np.ndarray,
        rng: np.random.Generator,
        tokens: np.ndarray | None = None,
        own: np.ndarray | None = None,
    ) -> Samples:
        """Play all of these arrivals to the end.

        `tokens`: those of each answer, where they are known: LoadGen deals a run of so many queries
        in the same order every time. `own`: the pace factors that are known of them.
        """
        count = len(arrived)
        if tokens is None:
            tokens = _drawn(self.tokens, count, rng)
        factors = self.pace_factors[self._alike(tokens, rng)]
        if own is not None:
            factors = np.where(np.isnan(own), factors, own)
        starts = _drawn(self.start_factors, count, rng)
        work = (tokens - 1) * factors
        first, done = np.zeros(count), np.zeros(count)
        for replica, slow in enumerate(self.slowness):
            mine = slice(replica, None, len(self.slowness))
            lists = (arrived[mine], slow * work[mine], slow * starts[mine])
            first[mine], done[mine] = _served(self, *(values.tolist() for values in lists))
        return Samples(arrived, first, done, tokens)

    def _alike(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each answer, the position of the observed one whose deviation it gets."""
        count, seen = len(tokens), len(self.factor_tokens)
        begins = rng.integers(0, seen, -(-count // STRETCH))
        centres = np.repeat(begins, STRETCH)[:count] + np.arange(count) % STRETCH
        near = (centres[:, None] + np.arange(-ALIKE, ALIKE + 1)) % seen
        off = np.abs(self.factor_tokens[near] - tokens[:, None])
        result: np.ndarray = near[np.arange(count), off.argmin(axis=1)]
        return result


def _drawn(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Whole shuffled copies, as LoadGen deals its samples: less noise than free draws."""
    copies = -(-count // len(values))
    result: np.ndarray = np.concatenate([rng.permutation(values) for _ in range(copies)])[:count]
    return result


def _served(
    engine: Engine, arrived: list[float], work: list[float], starts: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """First token's and last token's time of each request.

    All running requests share one clock of tokens, `progress`, which goes at the pace of their
    number.
    """
    pace, last = engine.pace.tolist(), len(engine.pace) - 1
    most = engine.most
    base, per_running, stall = engine.start_s, engine.start_per_running_s, engine.stall
    gap, more, may = engine.start_gap_s, engine.start_gap_per_running_s, 0.0
    first, done = [0.0] * len(arrived), [0.0] * len(arrived)
    running: list[tuple[float, int]] = []
    push, pop = heapq.heappush, heapq.heappop
    now = progress = 0.0
    waiting = position = 0  # those that arrived and have no place: waiting..position
    total = len(arrived)
    while position < total or running:
        count = len(running)
        step = pace[count if count < last else last]
        coming = arrived[position] if position < total else np.inf
        if running:
            leaving = now + (running[0][0] - progress) * step
            if leaving <= coming:
                progress = running[0][0]
                now = leaving
                _, number = pop(running)
                done[number] = now
                if waiting < position:
                    may = now if now > may else may
                    begin = may - now + (base + per_running * count) * starts[waiting]
                    may += gap + more * count
                    first[waiting] = now + begin
                    push(running, (progress + begin / step + work[waiting], waiting))
                    progress -= stall
                    waiting += 1
                continue
            progress += (coming - now) / step
        now = coming
        if count < most and waiting == position:
            may = now if now > may else may
            begin = may - now + (base + per_running * count) * starts[position]
            may += gap + more * count
            first[position] = now + begin
            step = pace[count + 1 if count < last else last]
            push(running, (progress + begin / step + work[position], position))
            progress -= stall
            waiting += 1
        position += 1
    return np.array(first), np.maximum(np.array(done), np.array(first))


def fit(probes: Sequence[Samples], answers: np.ndarray | None = None) -> Engine | None:
    """The engine that these probes show; None if they have too few answers. `answers`: tokens of
    every sample's answer, if known; else the probes' are used.
    """
    count = replica_count(probes)
    replica = [replica for samples in probes for replica in range(min(count, len(samples)))]
    whole = probes
    probes = [part for samples in probes for part in dealt(samples, count) if len(part)]
    views = [Concurrency.of(samples) for samples in probes]
    answered = [~np.isnan(samples.completed) & (samples.tokens > 1) for samples in probes]
    if sum(int(which.sum()) for which in answered) < FEWEST:
        return None
    slots = min(view.slots() for view in views)
    if np.isfinite(slots):  # whatever else made requests wait, so many did run
        slots = max(slots, max(float(view.running.max()) for view in views))
    start_s, per_running, start_factors = _starts(probes, views, slots)
    gap_s, gap_per_running = _gap(probes, views, slots)
    placed = [_placed(s, v, start_s, per_running) for s, v in zip(probes, views, strict=True)]
    counts = np.concatenate([s.tokens[which] for s, which in zip(probes, answered, strict=True)])
    number = [np.full(int(which.sum()), n) for n, which in zip(replica, answered, strict=True)]
    pace = fit_pace(probes, placed, answered, np.concatenate(number))
    own = [np.full(len(samples), np.nan) for samples in whole]
    parts = [values[replica::count] for values in own for replica in range(min(count, len(values)))]
    ends = np.cumsum([int(which.sum()) for which in answered])
    for part, which, factors in zip(
        parts, answered, np.split(pace.factors, ends[:-1]), strict=True
    ):
        part[which] = factors
    return Engine(
        pace=pace.table,
        stall=pace.stall,
        slots=slots,
        start_s=start_s,
        start_per_running_s=per_running,
        start_gap_s=gap_s,
        start_gap_per_running_s=gap_per_running,
        tokens=_whole(probes, counts) if answers is None else answers,
        pace_factors=pace.factors,
        factor_tokens=counts,
        start_factors=start_factors,
        slowness=pace.slowness,
        own=tuple(own),
    )


def _placed(
    samples: Samples, view: Concurrency, start_s: float, per_running_s: float
) -> Concurrency:
    """Running from when a place was there, as the first token takes its time from then on."""
    running, _ = view.at(samples.first)
    begun = np.maximum(samples.arrived, samples.first - start_s - per_running_s * running)
    return Concurrency.of(Samples(samples.arrived, begun, samples.completed, samples.tokens))


def _gap(
    probes: Sequence[Samples], views: Sequence[Concurrency], slots: float
) -> tuple[float, float]:
    """Time from one start to the next and what it grows by per running; 0 if none is delayed."""
    parts = [view.start_gaps(slots) for view in views]
    gaps, loads = (np.concatenate(values) for values in zip(*parts, strict=True))
    if len(gaps) < FEWEST or not gaps.any():
        return 0.0, 0.0
    slope = max(0.0, float(np.polyfit(loads, gaps, 1)[0])) if np.ptp(loads) > 1 else 0.0
    slope = min(slope, float(gaps.mean() / max(loads.mean(), 1.0)))
    # No larger than what passed in the probe that started most.
    part = min(1.0, 1 / max(_started_per_s(samples) for samples in probes) / float(gaps.mean()))
    return part * (float(gaps.mean()) - slope * float(loads.mean())), part * slope


def _started_per_s(samples: Samples) -> float:
    """Requests that got their first token, over the time that took."""
    known = ~np.isnan(samples.first)
    span = float(samples.first[known].max() - samples.arrived[0]) if known.any() else 0.0
    return max(float(known.sum()), 1.0) / max(span, 1e-9)


def _whole(probes: Sequence[Samples], counts: np.ndarray) -> np.ndarray:
    """Answers' lengths; of probes that went to their end only, if they have enough of them.

    A probe that was ended early has more of the short answers than of the long.
    """
    ended = [s.tokens for s in probes if not np.isnan(s.completed).any()]
    found = np.concatenate(ended) if ended else counts
    found = found[found > 1]
    return found if len(found) >= 5 * FEWEST else counts


def _starts(
    probes: Sequence[Samples], views: Sequence[Concurrency], slots: float
) -> tuple[float, float, np.ndarray]:
    """The time to the first token without waiting for a place: base, per running, factors."""
    loads, took = [], []
    for samples, view in zip(probes, views, strict=True):
        known = ~np.isnan(samples.first)
        running, waiting = view.at(samples.arrived[known])
        free = (running + waiting < 0.95 * slots) & (waiting <= QUEUED)
        loads.append(running[free])
        took.append((samples.first - samples.arrived)[known][free])
    load, time = np.concatenate(loads), np.concatenate(took)
    if len(time) < FEWEST:
        everything = np.concatenate([s.first - s.arrived for s in probes])
        shortest = float(np.nanpercentile(everything, 5))
        return shortest, 0.0, np.ones(FEWEST)
    slope = 0.0
    if np.ptp(load) > 1:
        slope = max(0.0, float(np.polyfit(load, time, 1)[0]))
    base = max(float(time.mean()) - slope * float(load.mean()), 0.1 * float(time.mean()))
    return base, slope, time / np.maximum(base + slope * load, 1e-9)
