"""An engine that computes nothing: token counts and timing only, to measure the harness by.

Its clock is its own: a place is taken over at the moment at which it became free, whenever `step`
is called, so a busy machine delays what is told of an answer but doesn't slow the engine down.
"""

import heapq
import math
import random
import time
import zlib
from array import array
from collections import deque
from collections.abc import Sequence
from statistics import NormalDist

from steps.errors import UserError
from steps.schema import Generation
from steps.serving import NullArguments
from steps.serving import NullEngine as NullConfig
from steps.sut.engine import Answer, Events, Request, Start

NAP_S = 0.001
"""A step waits no longer for its next event, so that requests which came meanwhile are taken."""

FILLER = 0
"""Token id of every answer's tokens but the last."""

Place = tuple[float, int, int]
"""When a sample leaves its place, its number, the length of its answer."""


class NullEngine:
    """Answers take the time that NullArguments says and hold filler."""

    def start(self, start: Start) -> None:
        if not isinstance(start.config, NullConfig):
            raise UserError(f"the null engine was given settings of {start.config.kind}")
        self._arguments = start.config.arguments
        self._first_tokens = start.first_tokens
        self._number = start.number
        self._lengths = Lengths(self._arguments, start.generation)
        self._waiting: deque[tuple[float, int, int]] = deque()
        self._running: list[Place] = []
        self._firsts: list[tuple[float, int]] = []
        self._answers = _Answers(start.generation.eos_token_id)
        self._epoch = self._period_end = time.perf_counter()
        self._free = self._arguments.max_num_seqs

    def submit(self, requests: Sequence[Request]) -> None:
        now = time.perf_counter()
        length_of = self._lengths.of
        self._waiting.extend([(now, number, length_of(prompt)) for number, prompt in requests])
        places = min(self._free, len(self._waiting))
        self._free -= places
        for _ in range(places):
            self._take(now)

    def step(self) -> Events:
        self._nap()
        now = time.perf_counter()
        running = self._running
        completed: list[Answer] = []
        while running and running[0][0] <= now:
            freed, number, length = heapq.heappop(running)
            completed.append((number, self._answers[length]))
            if self._waiting:
                self._take(freed)
            else:
                self._free += 1
        # Last: a sample may have taken its place in this very step and be done with it.
        first = []
        while self._firsts and self._firsts[0][0] <= now:
            first.append((heapq.heappop(self._firsts)[1], FILLER))
        return Events(first, completed)

    def identity(self) -> dict[str, str]:
        return {"name": "null", "version": "1", "device": "none"}

    def _take(self, freed: float) -> None:
        """The next waiting sample takes a place that is free since then."""
        submitted, number, length = self._waiting.popleft()
        began = freed if freed > submitted else submitted
        if began >= self._period_end:
            self._new_period(began)
        first = began + self._ttft_s
        heapq.heappush(self._running, (first + (length - 1) * self._tpot_s, number, length))
        if self._first_tokens:
            heapq.heappush(self._firsts, (first, number))

    def _new_period(self, moment: float) -> None:
        """Another draw of the speed."""
        arguments = self._arguments
        period = int((moment - self._epoch) / arguments.jitter_period_s)
        self._period_end = self._epoch + (period + 1) * arguments.jitter_period_s
        draw = random.Random(f"{arguments.seed}/{self._number}/{period}")
        speed = arguments.speeds[self._number % len(arguments.speeds)]
        speed *= draw.uniform(1 - arguments.jitter, 1 + arguments.jitter)
        self._ttft_s = arguments.ttft_ms / 1000 / speed
        self._tpot_s = arguments.tpot_ms / 1000 / speed

    def _nap(self) -> None:
        """Until the next event, but not for long."""
        due = [queue[0][0] for queue in (self._running, self._firsts) if queue]
        wait_s = min(due) - time.perf_counter() if due else NAP_S
        if wait_s > 0:
            time.sleep(min(wait_s, NAP_S))


class _Answers(dict[int, "array[int]"]):
    """Answers by their length, each made once."""

    def __init__(self, eos: int) -> None:
        self._eos = eos

    def __missing__(self, length: int) -> "array[int]":
        self[length] = array("i", [FILLER] * (length - 1) + [self._eos])
        return self[length]


class Lengths:
    """Lengths of answers: a pure function of the prompt and of the arguments."""

    def __init__(self, arguments: NullArguments, generation: Generation) -> None:
        self._bounds = generation.min_tokens, generation.max_tokens
        self._seed = arguments.seed
        sigma = arguments.output_tokens_sigma
        mu = math.log(arguments.output_tokens_mean) - sigma * sigma / 2
        self._law = NormalDist(mu, sigma) if sigma else None
        self._fixed = self._cut(arguments.output_tokens_mean)

    def of(self, prompt: Sequence[int]) -> int:
        if self._law is None:
            return self._fixed
        draw = zlib.crc32(array("i", prompt).tobytes(), self._seed)
        return self._cut(math.exp(self._law.inv_cdf((draw + 0.5) / 2**32)))

    def _cut(self, length: float) -> int:
        low, high = self._bounds
        return min(max(round(length), low), high)
