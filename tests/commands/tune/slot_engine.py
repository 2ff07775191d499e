"""A scripted engine with places, behind LoadGen: `python -m tests.commands.tune.slot_engine -m M`.

Runs module M as its command does, with this engine in vLLM's place. Its name goes into the result,
so nothing made here could ever enter a submission.
"""

import runpy
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence

from steps.config.resolved import Resolved
from steps.run.engines import engine as engines
from steps.run.engines.engine import Events, Request, Start

SLOTS = 8
TOKENS = 8
STEP_S = 0.01


class SlotEngine:
    """`SLOTS` requests at a time, one token each per step."""

    def __init__(self) -> None:
        self._waiting: deque[Request] = deque()
        self._running: dict[int, list[int]] = {}

    def start(self, start: Start) -> None:
        self._first_tokens = start.first_tokens

    def submit(self, requests: Sequence[Request]) -> None:
        self._waiting.extend(requests)

    def step(self) -> Events:
        time.sleep(STEP_S)
        events = Events()
        while self._waiting and len(self._running) < SLOTS:
            number, *_ = self._waiting.popleft()
            self._running[number] = []
        for number, tokens in list(self._running.items()):
            if not tokens and self._first_tokens:
                events.first.append((number, 7))
            tokens.append(7)
            if len(tokens) == TOKENS:
                events.completed.append((number, array("i", self._running.pop(number))))
        return events

    def threads(self) -> int:
        return 1

    def resolved(self) -> Resolved:
        return Resolved()

    def identity(self) -> dict[str, str]:
        return {"name": "slots", "version": "0", "device": "cpu"}


if __name__ == "__main__":
    engines.MAKERS["vllm"] = "tests.commands.tune.slot_engine:SlotEngine"
    _, flag, module, *rest = sys.argv
    assert flag == "-m"
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__")
