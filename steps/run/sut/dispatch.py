"""Which engine answers which sample: engines with room pull, each sample is answered once.

Pure bookkeeping without processes or LoadGen; times are arguments, in seconds. A sample has the
caller's number and an index in the dataset.
"""

import heapq
from collections.abc import Mapping, Sequence

from steps.run.engines.engine import Batch

Samples = tuple[list[int], list[int]]
"""Numbers and indices."""

FIRST_GUESS = 256.0
"""Tokens of an answer before any has come; the same for all engines, so it decides nothing."""

GAIN = 1 / 64
"""The weight of the latest answer's length in the running mean."""

MEMORY = 4
"""Speeds are means over this many answers per place: fewer is noise, more misses a slowdown."""


class Replica:
    """One engine as the dispatcher sees it.

    `places`: samples it works on at a time. `spare`: how many more it may hold in Offline, so that
    it never runs dry while its messages travel. `rate`: tokens per second of one sample on it,
    first from the warm-up, then recent: all tokens over the time that samples spent. `taken` maps
    the numbers of its unanswered samples to their indices.
    """

    def __init__(self, places: int, spare: int, rate: float) -> None:
        self.places = places
        self.spare = spare
        self.rate = rate
        self.taken: dict[int, int] = {}
        self.alive = True
        self.samples = 0
        self.tokens = 0
        """How many samples it has answered."""
        self.sample_s = 0.0
        """The time that samples have spent on it, in all."""
        self.prompt_tokens = 0
        """Prompt lengths of samples without a first token yet; kept for Server only."""
        self._fade = (1 - 1 / (MEMORY * places)) if MEMORY * places > 1 else 0.0
        self._recent_tokens = FIRST_GUESS * places
        self._recent_s = FIRST_GUESS * places / rate
        self._new_s = 0.0
        self._at: float | None = None

    @property
    def speed(self) -> float:
        """Tokens per second with all places taken."""
        return self.rate * self.places

    def advance(self, now: float) -> None:
        """Count the time that its samples have spent since the last call."""
        if self._at is not None:
            self._new_s += len(self.taken) * (now - self._at)
        self._at = now

    def brought(self, samples: int, tokens: int) -> None:
        """Count answers; old ones fade."""
        fade = self._fade**samples
        self._recent_tokens = self._recent_tokens * fade + tokens
        self._recent_s = self._recent_s * fade + self._new_s
        self.rate = self._recent_tokens / self._recent_s
        self.sample_s += self._new_s
        self._new_s = 0.0
        self.samples += samples
        self.tokens += tokens


class Dispatcher:
    """Hands samples to engines. `lengths`: tokens of the prompt per sample index.

    `latency_bound` (Server, Interactive): a sample goes to the engine with the least work for its
    speed, as soon as one has a place; work is counted in answer tokens, a prompt's token as
    `prompt_weight` of one. Otherwise (Offline) engines are kept full.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        lengths: Sequence[int],
        *,
        prompt_weight: float,
        latency_bound: bool,
    ) -> None:
        self.replicas = replicas
        self._lengths = lengths
        self._prompt_weight = prompt_weight
        self._latency_bound = latency_bound
        self._answer_tokens = FIRST_GUESS
        self._numbers: list[int] = []
        self._indices: list[int] = []
        self._at = 0
        """The position in these of the first sample that no engine has."""

    @property
    def pending(self) -> int:
        """How many samples no engine has."""
        return len(self._numbers) - self._at

    @property
    def outstanding(self) -> int:
        """How many samples have no answer."""
        return self.pending + sum(len(replica.taken) for replica in self.replicas)

    def add(self, numbers: Sequence[int], indices: Sequence[int]) -> None:
        """Add samples, to be answered in about this order."""
        if not self.pending:
            self._numbers, self._indices, self._at = [], [], 0
        self._numbers.extend(numbers)
        self._indices.extend(indices)

    def assign(self, now: float) -> Mapping[int, Samples]:
        """The samples that each engine gets now, by the engine's position among the replicas."""
        if not self.pending:
            return {}
        given = self._routed() if self._latency_bound else self._pulled()
        for n in given:
            self.replicas[n].advance(now)
        for n, (numbers, indices) in given.items():
            self.replicas[n].taken.update(zip(numbers, indices, strict=True))
        return given

    def started(self, engine: int, first: Batch) -> Batch:
        """First tokens have come; returns those whose samples are still this engine's."""
        replica = self.replicas[engine]
        mine = first.only([number in replica.taken for number in first.numbers])
        if self._latency_bound:
            indices = (replica.taken[number] for number in mine.numbers)
            replica.prompt_tokens -= sum(self._lengths[index] for index in indices)
        return mine

    def completed(self, engine: int, answers: Batch, now: float) -> Batch:
        """Answers have come; returns those whose samples are still this engine's."""
        replica = self.replicas[engine]
        replica.advance(now)
        taken = replica.taken
        mine = answers.only([taken.pop(number, None) is not None for number in answers.numbers])
        tokens = sum(mine.counts)
        replica.brought(len(mine), tokens)
        if mine:
            kept = (1 - GAIN) ** len(mine)
            self._answer_tokens = kept * self._answer_tokens + (1 - kept) * tokens / len(mine)
        return mine

    def lost(self, engine: int) -> None:
        """Remove a dead engine; its samples are the next ones for the others."""
        replica = self.replicas[engine]
        self._numbers[self._at : self._at] = replica.taken.keys()
        self._indices[self._at : self._at] = replica.taken.values()
        replica.taken = {}
        replica.prompt_tokens, replica.alive = 0, False

    # ---- Offline --------------------------------------------------------------------------------

    def _pulled(self) -> dict[int, Samples]:
        """Fill every engine's places, and its spare ones as long as plenty is left.

        An engine may hold in reserve no more than half of its share of what is left when all
        places are taken, so that the end of the list goes to the engine that is free first.
        """
        alive = [(n, replica) for n, replica in enumerate(self.replicas) if replica.alive]
        total = sum(replica.speed for _, replica in alive)
        free = sum(max(replica.places - len(replica.taken), 0) for _, replica in alive)
        left = max(self.pending - free, 0)
        rooms = {}
        for n, replica in alive:
            spare = min(replica.spare, int(left * replica.speed / total / 2))
            room = replica.places + spare - len(replica.taken)
            if room > 0:
                rooms[n] = room
        if sum(rooms.values()) > self.pending:
            rooms = self._shared(rooms, self.pending)
        return {n: self.next(room) for n, room in rooms.items()}

    def _shared(self, rooms: Mapping[int, int], left: int) -> dict[int, int]:
        """Give the last samples one by one to the engine that will finish its own first."""
        shares = dict.fromkeys(rooms, 0)
        loads = [(self._load(n, 0), n) for n in rooms]
        heapq.heapify(loads)
        for _ in range(left):
            _, n = loads[0]
            shares[n] += 1
            if shares[n] < rooms[n]:
                heapq.heapreplace(loads, (self._load(n, shares[n]), n))
            else:
                heapq.heappop(loads)
        return {n: share for n, share in shares.items() if share}

    def _load(self, n: int, more: int) -> float:
        replica = self.replicas[n]
        return (len(replica.taken) + more + 1) / replica.speed

    def next(self, count: int) -> Samples:
        """Hand out the first `count` samples that no engine has."""
        first, self._at = self._at, self._at + count
        return self._numbers[first : self._at], self._indices[first : self._at]

    # ---- Server and Interactive -----------------------------------------------------------------

    def _routed(self) -> dict[int, Samples]:
        """Give each sample to the engine with a free place that has the least work for its speed.
        Full engines get none: another may begin sooner what they would queue.
        """
        given: dict[int, Samples] = {}
        loads = [
            (self._work(replica, len(replica.taken)) / replica.rate, n)
            for n, replica in enumerate(self.replicas)
            if replica.alive and len(replica.taken) < replica.places
        ]
        heapq.heapify(loads)
        while self.pending and loads:
            _, n = loads[0]
            replica = self.replicas[n]
            numbers, indices = given.setdefault(n, ([], []))
            numbers.append(self._numbers[self._at])
            indices.append(self._indices[self._at])
            self._at += 1
            replica.prompt_tokens += self._lengths[indices[-1]]
            count = len(replica.taken) + len(numbers)
            if count < replica.places:
                heapq.heapreplace(loads, (self._work(replica, count) / replica.rate, n))
            else:
                heapq.heappop(loads)
        return given

    def _work(self, replica: Replica, count: int) -> float:
        """The replica's work with one sample more than these, in answer tokens."""
        return (count + 1) * self._answer_tokens + self._prompt_weight * replica.prompt_tokens
