"""One LoadGen run: LoadGen on one thread, the engine on another, a watchdog between them.

LoadGen waits for ever for a sample that never completes and can't be told to stop, and an exception
in its callbacks ends the process without a word. So neither is allowed to happen: callbacks only
move samples, everything that can fail runs on the engine's thread, and the main thread watches.
"""

import importlib
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from steps.console import Progress
from steps.errors import UserError
from steps.schema import RunConfig
from steps.sut.engine import MAKERS, Engine, Events, Request

POLL_S = 0.2
IDLE_GAPS = 30.0
"""With Poisson arrivals a gap of so many mean ones has probability e^-30: it is a hang."""


@dataclass(slots=True)
class Sample:
    """One query sample of LoadGen's and what became of it; times in s since the test began."""

    query_id: int
    index: int
    issued_s: float
    first_token_s: float | None = None
    completed_s: float | None = None
    output_tokens: int = 0


@dataclass
class EngineLoop:
    """Feeds the engine from a queue and tells LoadGen of tokens, on its own thread.

    `prompts` holds token ids per sample index. `samples` holds what LoadGen has issued, in its
    order.
    """

    config: RunConfig
    weights: Path
    prompts: list[list[int]]
    warmup: list[list[int]]
    progress: Callable[[int], Progress]
    identity: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    start_s: float = 0.0
    """How long the engine took to be ready for the first sample."""
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self._inbox: deque[Sample] = deque()
        self._wake = threading.Condition()
        self._running: dict[int, Sample] = {}
        self._number = 0
        self._epoch = time.perf_counter()
        self._last_progress = time.monotonic()
        self._bar: Progress | None = None
        self._stop = False
        self.ready = threading.Event()
        self._first_tokens = self.config.scenario != "Offline"
        # Enough waiting requests that the scheduler never runs dry, few enough that adding them
        # doesn't hold up the first tokens of those already running.
        self._depth = self.config.engine.arguments.max_num_seqs * 5 // 4
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # ---- main thread ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin loading; `ready` is set when samples may come, or `error` when they can't."""
        self._thread.start()

    def begin_test(self) -> None:
        self._epoch = time.perf_counter()
        self._last_progress = time.monotonic()

    def stop(self) -> None:
        """End the thread after the step it is in, and leave the progress line."""
        with self._wake:
            self._stop = True
            self._wake.notify()
        self._thread.join(POLL_S)
        if self._bar:
            self._bar.close()

    def fail(self, error: BaseException) -> None:
        """Note what voids the run, for `watch` to raise; the first one is the cause."""
        self.error = self.error or error
        self.ready.set()

    def stalled(self) -> str | None:
        """A phrase about what is waited for if nothing has moved for too long."""
        limit_s = self.config.engine.stall_limit_s
        if time.monotonic() - self._last_progress <= limit_s:
            return None  # nearly always: the queue, which can be long, isn't copied
        with self._wake:
            still_s = time.monotonic() - self._last_progress
            waiting = [*self._running.values(), *self._inbox]
        if not waiting:
            limit_s += IDLE_GAPS / self.config.loadgen.target_qps
            return f"LoadGen sent nothing for {still_s:.0f} s" if still_s > limit_s else None
        if still_s <= limit_s:
            return None
        oldest = min(waiting, key=lambda sample: sample.issued_s)
        waited_s = time.perf_counter() - self._epoch - oldest.issued_s
        return (
            f"sample {oldest.index} has waited {waited_s:.0f} s for its answer, "
            f"{len(waiting)} wait in all, and the engine brought nothing for {still_s:.0f} s"
        )

    # ---- LoadGen's threads ------------------------------------------------------------------

    def issue(self, queries: Sequence[Any]) -> None:
        """LoadGen's callback; must not raise and must not take long."""
        try:
            now = time.perf_counter() - self._epoch
            arrived = [Sample(query.id, query.index, now) for query in queries]
            with self._wake:
                if not self._inbox and not self._running:
                    self._last_progress = time.monotonic()  # the engine had nothing to do before
                self.samples.extend(arrived)
                self._inbox.extend(arrived)
                self._wake.notify()
        except BaseException as error:
            self.fail(error)

    # ---- engine's thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            engine = self._started()
            self.ready.set()
            while not self._stop:
                if not self._feed(engine):
                    continue
                self._deliver(engine.step())
        except BaseException as error:
            self.fail(error)

    def _started(self) -> Engine:
        begun = time.monotonic()
        module, name = MAKERS[self.config.engine.kind].split(":")
        engine = cast(Engine, getattr(importlib.import_module(module), name)())
        engine.start(
            self.weights,
            self.config.engine,
            self.config.generation,
            first_tokens=self._first_tokens,
        )
        self.identity = engine.identity()
        engine.submit([Request(-1 - i, prompt) for i, prompt in enumerate(self.warmup)])
        missing = len(self.warmup)
        while missing:
            missing -= len(engine.step().completed)
        self.start_s = time.monotonic() - begun
        return engine

    def _feed(self, engine: Engine) -> bool:
        """Top up the engine's queue; False if it has nothing to do."""
        requests = []
        with self._wake:
            if not self._inbox and not self._running:
                self._wake.wait(POLL_S)
            while self._inbox and len(self._running) < self._depth:
                sample = self._inbox.popleft()
                self._running[self._number] = sample
                requests.append(Request(self._number, self.prompts[sample.index]))
                self._number += 1
        if requests and self._bar is None:
            self._bar = self.progress(len(self.samples))
        engine.submit(requests)
        return bool(self._running)

    def _deliver(self, events: Events) -> None:
        import mlperf_loadgen

        now = time.perf_counter() - self._epoch
        if events.first:
            tokens = array("i", (token for _, token in events.first))
            for number, _ in events.first:
                self._running[number].first_token_s = now
            mlperf_loadgen.FirstTokenComplete(
                self._responses(tokens, [(number, 1) for number, _ in events.first])
            )
        if events.completed:
            tokens = array("i", (t for _, answer in events.completed for t in answer))
            counts = [(number, len(answer)) for number, answer in events.completed]
            responses = self._responses(tokens, counts)
            # Noted first: with the last response LoadGen ends the test, and the notes are read.
            with self._wake:
                for number, count in counts:
                    sample = self._running.pop(number)
                    sample.completed_s, sample.output_tokens = now, count
            mlperf_loadgen.QuerySamplesComplete(responses)
            if self._bar:
                self._bar.add(len(counts))
        if events.first or events.completed:
            self._last_progress = time.monotonic()

    def _responses(self, tokens: "array[int]", counts: list[tuple[int, int]]) -> list[Any]:
        """LoadGen copies what the pointers name before the call that takes them returns."""
        import mlperf_loadgen

        address, _ = tokens.buffer_info()
        responses, offset = [], 0
        for number, count in counts:
            size = count * tokens.itemsize
            query_id = self._running[number].query_id
            responses.append(
                mlperf_loadgen.QuerySampleResponse(query_id, address + offset, size, count)
            )
            offset += size
        return responses


def watch(loop: EngineLoop, test: threading.Thread, look: Callable[[], None] | None = None) -> None:
    """Wait for LoadGen; raises UserError as soon as it can't end well, and what `look` raises."""
    while True:
        test.join(POLL_S)
        if loop.error is not None:
            raise _explained(loop.error, "during the run")
        if not test.is_alive():
            return
        if look is not None:
            look()
        phrase = loop.stalled()
        if phrase:
            raise UserError(f"{phrase}; the run is void, see the log for the engine's last words")


def wait_until_ready(loop: EngineLoop, limit_s: float) -> None:
    """Raises UserError if the engine fails to start or takes longer than its limit."""
    if not loop.ready.wait(limit_s):
        raise UserError(
            f"the engine was not ready within start_limit_s = {limit_s:.0f} s; "
            "see the log for how far it got, or raise the limit"
        )
    if loop.error is not None:
        raise _explained(loop.error, "at start")


def _explained(error: BaseException, when: str) -> UserError:
    if isinstance(error, UserError):
        return error
    wrapped = UserError(f"the engine died {when}: {type(error).__name__}: {str(error)[:200]}")
    wrapped.__cause__ = error
    return wrapped
