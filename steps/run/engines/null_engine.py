"""An engine that computes nothing: token counts and timing only, to measure the harness.

It keeps its own clock: a place is reused from the moment it became free, no matter when `step` is
called, so a busy machine delays the report of an answer but doesn't slow the engine down.
"""

import heapq
import math
import random
import time
import zlib
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import groupby, repeat
from operator import itemgetter
from statistics import NormalDist

from steps.base.errors import UserError
from steps.config.engine import NullArguments
from steps.config.engine import NullEngine as NullConfig
from steps.config.generation import Generation, ImageGeneration
from steps.config.resolved import Resolved
from steps.run.engines.engine import Answer, Events, Request, Start

NAP_S = 0.001
"""The longest wait of a step for its next event, so that new requests are taken."""

FULL_NAP_S = 0.05
"""The same while every place is taken: a request could begin no earlier. Dozens of engines on two
cores would otherwise spend these on waking up."""

FILLER = 0
"""Token id of every answer's tokens but the last."""

Sample = tuple[int, int, float, float]
"""A request's number, answer length, time of submission, and seconds for its prompt."""

Places = tuple[float, int, int, list[int]]
"""Samples of one length that began together: their end, the first one's number, length, numbers."""


class NullEngine:
    """Answers take the time set in NullArguments and consist of filler."""

    def start(self, start: Start) -> None:
        if not isinstance(start.config, NullConfig) or isinstance(
            start.generation, ImageGeneration
        ):
            raise UserError(f"the null engine was given settings of {start.config.kind}")
        self._arguments = start.config.arguments
        self._first_tokens = start.first_tokens
        self._number = start.number
        self._lengths = Lengths(self._arguments, start.generation)
        self._waiting: deque[Sample] = deque()
        self._running: list[Places] = []
        self._firsts: list[tuple[float, list[int]]] = []
        self._answers = _Answers(start.generation.ends[0])
        self._epoch = self._period_end = time.perf_counter()
        self._free = self._arguments.max_num_seqs

    def submit(self, requests: Sequence[Request]) -> None:
        now = time.perf_counter()
        samples = self._lengths.measured(requests, now)
        places = min(self._free, len(samples))  # none wait while a place is free
        self._free -= places
        self._begin(now, samples[:places])
        self._waiting.extend(samples[places:])

    def step(self) -> Events:
        self._nap()
        now = time.perf_counter()
        running, waiting = self._running, self._waiting
        completed: list[Answer] = []
        while running and running[0][0] <= now:
            freed, _, length, numbers = heapq.heappop(running)
            completed.extend(zip(numbers, repeat(self._answers[length])))
            count = min(len(numbers), len(waiting))
            self._free += len(numbers) - count
            self._begin(freed, [waiting.popleft() for _ in range(count)])
        # Last: a sample may have taken its place in this very step and be done with it.
        first: list[tuple[int, int]] = []
        while self._firsts and self._firsts[0][0] <= now:
            first.extend(zip(heapq.heappop(self._firsts)[1], repeat(FILLER)))
        return Events(first, completed)

    def threads(self) -> int:
        return 0

    def resolved(self) -> Resolved:
        return Resolved()

    def identity(self) -> dict[str, str]:
        return {"name": "null", "version": "1", "device": "none"}

    def device(self) -> str:
        return "none"

    def _begin(self, freed: float, samples: Sequence[Sample]) -> None:
        """Samples take places, from the time they became free."""
        for (length, submitted, prompt_s), group in groupby(samples, itemgetter(1, 2, 3)):
            began = max(freed, submitted)
            if began >= self._period_end:
                self._new_period(began)
            first = began + self._ttft_s + prompt_s / self._speed
            numbers = [sample[0] for sample in group]
            end = first + (length - 1) * self._tpot_s
            heapq.heappush(self._running, (end, numbers[0], length, numbers))
            if self._first_tokens:
                heapq.heappush(self._firsts, (first, numbers))

    def _new_period(self, moment: float) -> None:
        """Draw the speed again."""
        arguments = self._arguments
        period = int((moment - self._epoch) / arguments.jitter_period_s)
        self._period_end = self._epoch + (period + 1) * arguments.jitter_period_s
        draw = random.Random(f"{arguments.seed}/{self._number}/{period}")
        speed = arguments.speeds[self._number % len(arguments.speeds)]
        speed *= draw.uniform(1 - arguments.jitter, 1 + arguments.jitter)
        self._speed = speed
        self._ttft_s = arguments.ttft_ms / 1000 / speed
        self._tpot_s = arguments.tpot_ms / 1000 / speed

    def _nap(self) -> None:
        """Wait for the next event, but not for long."""
        due = [queue[0][0] for queue in (self._running, self._firsts) if queue]
        longest_s = NAP_S if self._free else FULL_NAP_S
        wait_s = min(due) - time.perf_counter() if due else NAP_S
        if wait_s > 0:
            time.sleep(min(wait_s, longest_s))


class _Answers(dict[int, "array[int]"]):
    """Answers by length, each made once."""

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
        self._prompt_token_s = arguments.prompt_token_ms / 1000
        sigma = arguments.output_tokens_sigma
        mu = math.log(arguments.output_tokens_mean) - sigma * sigma / 2
        self._law = NormalDist(mu, sigma) if sigma else None
        self._fixed = self._cut(arguments.output_tokens_mean)

    def measured(self, requests: Sequence[Request], now: float) -> list[Sample]:
        law, token_s = self._law, self._prompt_token_s
        if law is None and not token_s:
            return [(number, self._fixed, now, 0.0) for number, *_ in requests]
        return [
            (number, self.of(prompt, law) if law else self._fixed, now, len(prompt) * token_s)
            for number, prompt, _ in requests
        ]

    def of(self, prompt: Sequence[int], law: NormalDist) -> int:
        draw = zlib.crc32(array("i", prompt).tobytes(), self._seed)
        return self._cut(math.exp(law.inv_cdf((draw + 0.5) / 2**32)))

    def _cut(self, length: float) -> int:
        low, high = self._bounds
        return min(max(round(length), low), high)
