"""A scripted engine behind the real LoadGen: `python -m tests.fake_engine STEP BEHAVIOUR ...`.

Runs a run step as its command does, with this engine in vLLM's place; its name goes into the
result, so nothing made here could ever enter a submission.
"""

import hashlib
import importlib
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from steps.base.errors import UserError
from steps.run.engines import engine as engines
from steps.run.engines.engine import Events, Request, Start

BEHAVIOUR = "answer"
ANSWER_TOKENS = 5
LOST_REQUEST = 10
STEP_S = 0.002


class FakeEngine:
    """Answers in order, `ANSWER_TOKENS` tokens each, the first of them its prompt's last."""

    def __init__(self) -> None:
        self._waiting: deque[Request] = deque()
        self._started: deque[tuple[int, list[int]]] = deque()

    def start(self, start: Start) -> None:
        self._eos = start.generation.ends[0]
        self._most = start.generation.max_tokens
        self._first_tokens = start.first_tokens
        if BEHAVIOUR == "no-start":
            raise UserError("no accelerator is there")
        if BEHAVIOUR == "slow-start":
            time.sleep(60)

    def submit(self, requests: Sequence[Request]) -> None:
        self._waiting.extend(requests)

    def step(self) -> Events:
        events = Events()
        if BEHAVIOUR == "die" and any(number >= LOST_REQUEST for number, *_ in self._waiting):
            raise RuntimeError("out of memory")
        for number, tokens in self._started:
            events.completed.append((number, array("i", tokens)))
        self._started.clear()
        if BEHAVIOUR == "spin":  # as threads that no library admits
            list(SPINNING.map(_hash, range(2)))
        while self._waiting:
            number, prompt, _ = self._waiting.popleft()
            if BEHAVIOUR == "lose" and number == LOST_REQUEST:
                continue
            tokens = [prompt[-1]] * (ANSWER_TOKENS - 1) + [self._eos]
            if BEHAVIOUR == "one-token" and number == LOST_REQUEST:
                tokens = [self._eos]
            if BEHAVIOUR == "no-token" and number == LOST_REQUEST:
                tokens = []
            if BEHAVIOUR == "longest":
                tokens = [prompt[-1]] * self._most
            if BEHAVIOUR == "too-long" and number >= LOST_REQUEST:
                tokens = [prompt[-1]] * (self._most + 1)
            self._started.append((number, tokens))
            if self._first_tokens and tokens:
                first = tokens[0] + (1 if BEHAVIOUR == "wrong-first" else 0)
                events.first.append((number, first))
        time.sleep(0.5 if BEHAVIOUR == "slow" else STEP_S)
        return events

    def threads(self) -> int:
        return 2 if BEHAVIOUR == "two-threads" else 1

    def identity(self) -> dict[str, str]:
        return {"name": "fake", "version": "0", "device": "cpu"}


SPINNING = ThreadPoolExecutor(2)


def _hash(number: int) -> None:
    """Computes without Python's lock."""
    hashlib.sha256(bytes([number]) * 2**27)


if __name__ == "__main__":
    _, name, behaviour, *rest = sys.argv
    module = importlib.import_module("tests.fake_engine")
    module.BEHAVIOUR = behaviour  # type: ignore[attr-defined]
    engines.MAKERS["vllm"] = "tests.fake_engine:FakeEngine"
    sys.argv = [name, *rest]
    from steps.base.step import main
    from steps.plan.registry import STEPS

    main(name, STEPS[name].config, importlib.import_module(STEPS[name].module).step)
