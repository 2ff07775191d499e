"""A simulated engine in virtual time, for bench and tests of the search: it never serves a model.

One continuous-batching engine per node: every step gives each running request a token and starts
waiting ones, within the slots and the step's share of prefill. Nothing in `steps/` can start it, so
no submission can contain its results.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steps.commands.tune.arrivals import Length, arrivals
from steps.commands.tune.measure import METRICS, Limits, Measurement, Probe, Samples, reason_to_stop
from steps.commands.tune.watching import LOOK_S
from steps.mlperf.early_stopping import allowed_misses

NOISES = 1 << 15
"""Factors of jitter, one per step, before they repeat."""


@dataclass(frozen=True)
class Behaviour:
    """How an engine queues. Times in s.

    A step takes `step_s` + `per_running_s` x running + `per_prefill_s` x requests started in it,
    at least `floor_s`, times the node's slowness and a lognormal factor of `jitter`. `burst`:
    (mean s between, length in s, slowness within). `pause`: (s between, length in s) of stops at
    fixed times, as of a garbage collector. `shared`: nodes draw from one queue instead of being
    dealt requests in turn.
    """

    step_s: float
    per_running_s: float = 0.0
    per_prefill_s: float = 0.0
    floor_s: float = 0.0
    slots: int = 256
    prefills: int = 8
    slowness: tuple[float, ...] = (1.0,)
    jitter: float = 0.0
    burst: tuple[float, float, float] | None = None
    pause: tuple[float, float] | None = None
    shared: bool = False
    knee: tuple[int, float] | None = None
    """(running, further s per running request beyond it)."""


@dataclass(frozen=True)
class Answers:
    """Tokens per answer: lognormal around `mean`, mixed with a second kind by `share`."""

    mean: float
    spread: float
    second_mean: float = 0.0
    second_share: float = 0.0

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        tokens = self.mean * rng.lognormal(-(self.spread**2) / 2, self.spread, count)
        second = rng.random(count) < self.second_share
        tokens[second] *= self.second_mean / self.mean
        result: np.ndarray = np.clip(np.rint(tokens), 2, 2048).astype(np.int64)
        return result


@dataclass(frozen=True)
class Kind:
    """A named behaviour with a round's requirements."""

    name: str
    behaviour: Behaviour
    answers: Answers
    limits: Limits
    length: Length


class SimulatedProber:
    """Plays LoadGen's schedule to a kind of engine; `seed` is for the engine's noise."""

    def __init__(self, kind: Kind, seed: int) -> None:
        self.kind = kind
        self._seed = seed
        self.measured_s = 0.0
        self.probes: list[Measurement] = []

    def measure(self, probe: Probe) -> Measurement:
        kind = self.kind
        tokens = tokens_of(kind, probe.queries, probe.seed)
        rng = np.random.default_rng((self._seed, probe.number, probe.queries))
        times = arrivals(probe.seed, probe.rate, probe.queries)
        found = play(kind, times, tokens, rng, probe)
        self.measured_s += found.measured_s
        self.probes.append(found)
        return found


def dataset(kind: Kind) -> np.ndarray:
    """Tokens of the answer to every sample."""
    return kind.answers.draw(kind.length.sample_count, np.random.default_rng(kind.length.seed))


def tokens_of(kind: Kind, queries: int, seed: int) -> np.ndarray:
    """Answers' tokens in LoadGen's order: whole shuffled copies of one set of samples."""
    size = min(queries, kind.length.sample_count)
    rng = np.random.default_rng(seed)
    lengths = rng.permutation(dataset(kind))[:size]
    copies = -(-queries // size)
    result: np.ndarray = np.concatenate([rng.permutation(lengths) for _ in range(copies)])[:queries]
    return result


def full_run(kind: Kind, rate: float, seed: Sequence[int], *, watched: bool) -> Measurement:
    """A run of the rules' length; `watched` ends it as soon as it can't be VALID."""
    queries = kind.length.queries(rate)
    allowed = allowed_misses(queries) if watched else None
    probe = Probe(
        number=1,
        seed=kind.length.seed,
        rate=rate,
        queries=queries,
        final=True,
        allowed_misses=allowed,
    )
    times = arrivals(kind.length.seed, rate, queries)
    rng = np.random.default_rng(tuple(seed))
    return play(
        kind, times, tokens_of(kind, queries, kind.length.seed), rng, probe, watched=watched
    )


def play(
    kind: Kind,
    times: np.ndarray,
    tokens: np.ndarray,
    rng: np.random.Generator,
    probe: Probe,
    *,
    watched: bool = True,
) -> Measurement:
    """Play all queries to the end, or until `probe` may end."""
    first, done = [0.0] * len(times), [0.0] * len(times)
    nodes = [_Node(kind.behaviour, slow, rng) for slow in kind.behaviour.slowness]
    moments, counts = times.tolist(), tokens.tolist()
    if kind.behaviour.shared:
        _share(nodes, moments, counts, first, done)
    else:
        for number, node in enumerate(nodes):
            mine = range(number, len(moments), len(nodes))
            node.serve(mine, moments, counts, first, done)
    last = max(done)
    whole = Samples(times, np.array(first), np.array(done), tokens)
    for now in np.arange(LOOK_S, last, LOOK_S) if watched else ():
        seen = until(whole, float(now))
        reason = reason_to_stop(seen, float(now), kind.limits, probe)
        if reason:
            return Measurement(probe, seen, reason, float(now), 0.0, None)
    valid = holds(whole, kind.limits) if probe.final else None
    return Measurement(probe, whole, "complete", last, 0.0, valid)


def holds(samples: Samples, limits: Limits) -> bool:
    """Early stopping and the limits of a whole run, on these samples."""
    allowed = allowed_misses(len(samples))
    return all(
        int(samples.missed(metric, limits.of(metric), np.inf).sum()) <= allowed
        for metric in METRICS
    )


def until(whole: Samples, now: float) -> Samples:
    """The measurements of a run up to a time."""
    count = int(np.searchsorted(whole.arrived, now))
    first, completed = whole.first[:count], whole.completed[:count]
    return Samples(
        whole.arrived[:count],
        np.where(first <= now, first, np.nan),
        np.where(completed <= now, completed, np.nan),
        np.where(completed <= now, whole.tokens[:count], 0),
    )


class _Node:
    """One engine's clock and batch."""

    def __init__(self, behaviour: Behaviour, slowness: float, rng: np.random.Generator) -> None:
        self.behaviour = behaviour
        self.slowness = slowness
        self.now = 0.0
        self.step = 0
        self.running = 0
        self.waiting: deque[int] = deque()
        self._ends: dict[int, list[int]] = {}
        self._noise = self._factors(rng)
        self._bursts = self._burst_times(rng)
        self._paused = 0

    def _factors(self, rng: np.random.Generator) -> list[float]:
        jitter = self.behaviour.jitter
        if not jitter:
            return []
        return list(rng.lognormal(-(jitter**2) / 2, jitter, NOISES).tolist())

    def _burst_times(self, rng: np.random.Generator) -> deque[tuple[float, float]]:
        found: deque[tuple[float, float]] = deque()
        if self.behaviour.burst is not None:
            between, length, _ = self.behaviour.burst
            begin = 0.0
            for gap in rng.exponential(between, 400):
                begin += gap
                found.append((begin, begin + length))
                begin += length
        return found

    def advance(self, counts: list[int], first: list[float], done: list[float]) -> None:
        """One step of the batch, with as many waiting requests as may start."""
        behaviour, waiting, running, step = self.behaviour, self.waiting, self.running, self.step
        fresh: list[int] = []
        if waiting:
            for _ in range(min(len(waiting), behaviour.slots - running, behaviour.prefills)):
                number = waiting.popleft()
                fresh.append(number)
                self._ends.setdefault(step + counts[number] - 1, []).append(number)
            running += len(fresh)
        took = behaviour.step_s + behaviour.per_running_s * running
        if behaviour.knee is not None and running > behaviour.knee[0]:
            took += behaviour.knee[1] * (running - behaviour.knee[0])
        if took < behaviour.floor_s:
            took = behaviour.floor_s
        if fresh:
            took += behaviour.per_prefill_s * len(fresh)
        took *= self.slowness
        if self._noise:
            took *= self._noise[step % NOISES]
        if self._bursts:
            took *= self._burst_factor()
        if behaviour.pause is not None:
            took += self._pause(behaviour.pause, took)
        self.now += took
        for number in fresh:
            first[number] = self.now
        ended = self._ends.pop(step, None)
        if ended:
            for number in ended:
                done[number] = self.now
            running -= len(ended)
        self.running = running
        self.step = step + 1

    def _burst_factor(self) -> float:
        while self._bursts and self._bursts[0][1] < self.now:
            self._bursts.popleft()
        within = bool(self._bursts) and self._bursts[0][0] <= self.now
        return self.behaviour.burst[2] if within and self.behaviour.burst else 1.0

    def _pause(self, pause: tuple[float, float], took: float) -> float:
        """How long a step pauses: once, even for several pauses since the last one."""
        passed = int((self.now + took) / pause[0])
        due, self._paused = passed > self._paused, passed
        return pause[1] if due else 0.0

    def serve(
        self,
        mine: range,
        moments: list[float],
        counts: list[int],
        first: list[float],
        done: list[float],
    ) -> None:
        """All requests of its own, in order of arrival."""
        position, total = 0, len(mine)
        while position < total or self.running or self.waiting:
            if not self.running and not self.waiting:
                self.now = max(self.now, moments[mine[position]])
            while position < total and moments[mine[position]] <= self.now:
                self.waiting.append(mine[position])
                position += 1
            self.advance(counts, first, done)


def _share(
    nodes: list[_Node],
    moments: list[float],
    counts: list[int],
    first: list[float],
    done: list[float],
) -> None:
    """One queue for all: the node with the least running takes what has come when it steps."""
    queue: deque[int] = deque()
    position, total = 0, len(moments)
    order = [(0.0, number) for number in range(len(nodes))]
    heapq.heapify(order)
    while position < total or queue or any(node.running or node.waiting for node in nodes):
        now, number = heapq.heappop(order)
        node = nodes[number]
        node.now = max(node.now, now)
        while position < total and moments[position] <= node.now:
            queue.append(position)
            position += 1
        idlest = sum(other.running for other in nodes) / len(nodes)
        while queue and node.running + len(node.waiting) <= idlest + 1:
            node.waiting.append(queue.popleft())
        if node.running or node.waiting:
            node.advance(counts, first, done)
            heapq.heappush(order, (node.now, number))
            continue
        coming = moments[position] if position < total else np.inf
        others = order[0][0] if order else np.inf
        later = min(coming, max(others, node.now + node.behaviour.step_s))
        heapq.heappush(order, (later if later > node.now else node.now + 1e-3, number))
