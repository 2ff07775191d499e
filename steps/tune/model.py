"""What probes teach of an engine, and what it would do with the whole schedule of a run.

The model is a queue in front of `slots` places. Whoever has a place gets tokens at a pace that
depends on how many have one; how a request deviates from that pace is drawn from what was observed.
It is fitted to single requests, hundreds a minute, which is why it knows an engine sooner than the
one request in a hundred that decides whether a run is VALID. Where it errs in the tail, steps of
steps/tune/tail.py correct it by the tails that probes had.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steps.tune.concurrency import FEWEST, Concurrency
from steps.tune.measure import Samples

LEVEL = 1.12
"""Levels of concurrency at which the pace is averaged: each so many times the one before."""

MOST_RUNNING = 1 << 14


@dataclass(frozen=True)
class Engine:
    """A fitted engine.

    `pace` holds the s per token with 0, 1, 2, ... running. `start_s` and `start_per_running_s` are
    what the first token takes once a place is there, `start_gap_s` passes at least from one start
    to the next. `tokens`, `pace_factors` and `start_factors`
    are observed: a request draws one of each.
    """

    pace: np.ndarray
    slots: float
    start_s: float
    start_per_running_s: float
    start_gap_s: float
    tokens: np.ndarray
    pace_factors: np.ndarray
    start_factors: np.ndarray

    @property
    def most(self) -> int:
        return int(min(self.slots, MOST_RUNNING))

    def play(
        self, arrived: np.ndarray, rng: np.random.Generator, tokens: np.ndarray | None = None
    ) -> Samples:
        """All of these arrivals to the end.

        `tokens`: those of each answer, where they are known: LoadGen deals a run of so many queries
        in the same order every time.
        """
        count = len(arrived)
        if tokens is None:
            tokens = _drawn(self.tokens, count, rng)
        factors = _drawn(self.pace_factors, count, rng)
        starts = _drawn(self.start_factors, count, rng)
        work = ((tokens - 1) * factors).tolist()
        first, done = _served(self, arrived.tolist(), work, starts.tolist())
        return Samples(arrived, first, done, tokens)


def _drawn(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Whole shuffled copies, as LoadGen deals its samples: less noise than free draws."""
    copies = -(-count // len(values))
    result: np.ndarray = np.concatenate([rng.permutation(values) for _ in range(copies)])[:count]
    return result


def _served(
    engine: Engine, arrived: list[float], work: list[float], starts: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """First token's and last token's time of each request.

    All that run share one clock of tokens; it is `progress`, and goes at the pace of their number.
    """
    pace, last = engine.pace.tolist(), len(engine.pace) - 1
    most = engine.most
    base, per_running = engine.start_s, engine.start_per_running_s
    gap, may = engine.start_gap_s, 0.0
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
                    may += gap
                    first[waiting] = now + begin
                    push(running, (progress + begin / step + work[waiting], waiting))
                    waiting += 1
                continue
            progress += (coming - now) / step
        now = coming
        if count < most and waiting == position:
            may = now if now > may else may
            begin = may - now + (base + per_running * count) * starts[position]
            may += gap
            first[position] = now + begin
            step = pace[count + 1 if count < last else last]
            push(running, (progress + begin / step + work[position], position))
            waiting += 1
        position += 1
    return np.array(first), np.maximum(np.array(done), np.array(first))


def fit(probes: Sequence[Samples], answers: np.ndarray | None = None) -> Engine | None:
    """The engine that these probes show; None if they have too few answers to tell.

    `answers`: tokens of every sample's answer, if known; else those of the probes stand for them.
    """
    views = [Concurrency.of(samples) for samples in probes]
    answered = [~np.isnan(samples.completed) & (samples.tokens > 1) for samples in probes]
    if sum(int(which.sum()) for which in answered) < FEWEST:
        return None
    slots = min(view.slots() for view in views)
    if np.isfinite(slots):  # whatever else made requests wait, so many did run
        slots = max(slots, max(float(view.running.max()) for view in views))
    gaps = [gap for view in views if (gap := view.start_gap_s(slots))]
    load, pace, tokens = [], [], []
    for samples, view, which in zip(probes, views, answered, strict=True):
        first, completed = samples.first[which], samples.completed[which]
        load.append(view.mean_running(first, completed))
        tokens.append(samples.tokens[which])
        pace.append((completed - first) / (samples.tokens[which] - 1))
    loads, paces, counts = (np.concatenate(parts) for parts in (load, pace, tokens))
    table = _pace(loads, paces, counts - 1)
    expected = np.interp(loads, np.arange(len(table)), table)
    start_s, per_running, start_factors = _starts(probes, views, slots)
    return Engine(
        pace=table,
        slots=slots,
        start_s=start_s,
        start_per_running_s=per_running,
        start_gap_s=min([*gaps, 1 / max(_started_per_s(samples) for samples in probes)])
        if gaps
        else 0.0,
        tokens=_whole(probes, counts) if answers is None else answers,
        pace_factors=paces / expected,
        start_factors=start_factors,
    )


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


def _pace(load: np.ndarray, pace: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """s per token by number running: means of levels, never falling, straight in between."""
    parts = _levels(load)
    centres = np.array([np.average(load[part], weights=weight[part]) for part in parts])
    means = np.array([np.average(pace[part], weights=weight[part]) for part in parts])
    means = _never_falling(means, np.array([len(part) for part in parts], dtype=float))
    span = float(centres[-1] - centres[0])
    if span < max(0.05 * centres[-1], 0.5):  # one level only says nothing of the slope
        return np.full(2, float(np.average(pace, weights=weight)))
    upper = slice(len(centres) // 2, None) if len(centres) >= 4 else slice(None)
    slope = max(0.0, float(np.polyfit(centres[upper], means[upper], 1)[0]))
    lower = max(0.0, float(np.polyfit(centres, means, 1)[0]))
    reach = np.arange(int(4 * centres[-1]) + 64)
    table = np.interp(reach, centres, means)
    table += slope * np.maximum(reach - centres[-1], 0)
    table -= np.minimum(lower * np.maximum(centres[0] - reach, 0), 0.8 * means[0])
    result: np.ndarray = table
    return result


def _levels(load: np.ndarray) -> list[np.ndarray]:
    """Indices by level of load, rising; each level has enough of them."""
    order = np.argsort(load)
    parts, begin = [], 0
    for end in range(FEWEST, len(order) - FEWEST):
        wide = load[order[end]] > max(LEVEL * load[order[begin]], load[order[begin]] + 1)
        if wide and end - begin >= FEWEST:
            parts.append(order[begin:end])
            begin = end
    return [*parts, order[begin:]]


def _never_falling(means: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest series that never falls: neighbours that do are averaged."""
    blocks: list[tuple[float, float, int]] = []
    for mean, weight in zip(means, weights, strict=True):
        blocks.append((float(mean), float(weight), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, wa, na), (b, wb, nb) = blocks[-2:]
            blocks[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    result: np.ndarray = np.concatenate([np.full(count, mean) for mean, _, count in blocks])
    return result


def _starts(
    probes: Sequence[Samples], views: Sequence[Concurrency], slots: float
) -> tuple[float, float, np.ndarray]:
    """What a first token takes where nobody has to wait for a place: base, per running, factors."""
    loads, took = [], []
    for samples, view in zip(probes, views, strict=True):
        known = ~np.isnan(samples.first)
        running, waiting = view.at(samples.arrived[known])
        free = running + waiting < 0.95 * slots
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
