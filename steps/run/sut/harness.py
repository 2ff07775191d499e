"""One LoadGen run: LoadGen on one thread, the engine on another, a watchdog between them.

LoadGen waits without limit for a sample that never completes and can't be stopped, and an exception
in its callbacks ends the process silently. So neither may happen: callbacks only move samples,
everything that can fail runs on the engine's thread, and the main thread watches.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from steps.base.console import Progress
from steps.base.errors import UserError
from steps.config.generation import ImageGeneration
from steps.config.runs import RunConfig
from steps.mlperf.loadgen_log import TOKEN_BYTES
from steps.run.engines import pinning
from steps.run.engines.engine import Batch, News, Start, hold_off_collections
from steps.run.sut.backend import Backend, InProcess, Job
from steps.run.sut.book import Book
from steps.run.sut.fleet import Fleet
from steps.run.sut.ordering import LongestFirst

POLL_S = 0.2
END_S = 2.0
"""How long the engine's thread may take to end its current step."""
IDLE_GAPS = 30.0
"""With Poisson arrivals, a gap of this many mean ones has probability e^-30: it is a hang."""


@dataclass
class EngineLoop:
    """Feeds LoadGen's samples to the engines and reports tokens to LoadGen, on its own thread.

    `prompts` holds token ids per sample index, `stops` the sequence that ends its answer where the
    dataset has any. `book` holds what LoadGen has issued; a sample's
    number there is its number for the engines.
    """

    config: RunConfig
    weights: Path
    prompts: list[list[int]]
    warmup: list[list[int]]
    progress: Callable[[int], Progress]
    say: Callable[[str], None]
    stops: Sequence[Sequence[int]] = ()
    caches: str = ""
    """Where engines on accelerators keep what they compile (steps/run/engines/engine.py)."""
    manifest: str = ""
    outside: Path | None = None
    """Both: see Job."""
    noise: Path | None = None
    """The latents that every picture starts from."""
    book: Book = field(default_factory=Book)
    start_s: float = 0.0
    """How long the engines took to be ready for the first sample."""
    cpus: pinning.Apart = pinning.TOGETHER
    """The CPUs of the engine's thread and LoadGen's, if they share a process and are kept apart."""
    error: BaseException | None = None

    def __post_init__(self) -> None:
        start = Start(
            self.weights,
            self.config.engine,
            self.config.generation,
            first_tokens=self.config.scenario != "Offline",
            caches=self.caches,
            noise=self.noise,
        )
        kind = InProcess if self.config.engine.placement.in_process else Fleet
        self.backend: Backend = kind(
            Job(
                start,
                self.prompts,
                self.stops,
                self.warmup,
                self.say,
                self.manifest,
                self.outside,
            )
        )
        self._fed = 0
        self._sorted = None
        if self.config.engine.offline_order == "longest_first" and not start.first_tokens:
            copy = self.config.loadgen.sample_count(self.config.rules)
            self._sorted = LongestFirst([len(prompt) for prompt in self.prompts], copy)
        self._epoch = time.perf_counter()
        self._last_progress = time.monotonic()
        self._bar: Progress | None = None
        self._stop = False
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # ---- main thread ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin loading; sets `ready` when samples may come, or `error` if that fails."""
        self._thread.start()

    @contextmanager
    def beside_engine(self) -> Iterator[None]:
        """Keeps the calling thread, and those that it starts, off the engine's CPUs."""
        before = os.sched_getaffinity(0)
        if self.cpus.others and not pinning.keep_to(self.cpus.others):
            self.cpus = self.cpus._replace(others=())
        try:
            yield
        finally:
            if self.cpus.others:
                pinning.keep_to(before)

    def begin_test(self) -> float:
        """Returns the moment from which times are counted, of time.perf_counter."""
        hold_off_collections()
        self._epoch = time.perf_counter()
        self._last_progress = time.monotonic()
        return self._epoch

    def stop(self) -> None:
        """End the thread after its current step, and the engines; end the progress line."""
        self._stop = True
        self.backend.wake()
        self._thread.join(END_S)
        self.backend.close()
        if self._bar:
            self._bar.close()

    def fail(self, error: BaseException) -> None:
        """Note an error that voids the run, for `watch` to raise; the first one is the cause."""
        self.error = self.error or error
        self.ready.set()

    def stalled(self) -> str | None:
        """A phrase about what the run waits for, if there was no progress for too long."""
        limit_s = self.config.engine.stall_limit_s
        if self.config.engine.placement.on_failure == "redispatch":
            limit_s *= 2  # one stalled engine is the fleet's to replace
        still_s = time.monotonic() - self._last_progress
        if still_s <= limit_s:
            return None  # nearly always: the samples, which can be many, aren't looked at
        waiting = self.book.unanswered()
        if not waiting:
            limit_s += IDLE_GAPS / self.config.loadgen.target_qps
            return f"LoadGen sent nothing for {still_s:.0f} s" if still_s > limit_s else None
        waited_s = time.perf_counter() - self._epoch - waiting[0].issued_s
        return (
            f"sample {waiting[0].sample_index} has waited {waited_s:.0f} s for its answer, "
            f"{len(waiting)} wait in all, and the engine made no progress for {still_s:.0f} s"
        )

    # ---- LoadGen's threads ------------------------------------------------------------------

    def issue(self, query_ids: Sequence[int], indices: Sequence[int]) -> None:
        """LoadGen's callback; it must neither raise nor take long."""
        try:
            now = time.perf_counter() - self._epoch
            if self.book.completed == len(self.book):
                self._last_progress = time.monotonic()  # the engines had nothing to do before
            self.book.issue(query_ids, indices, now)
            self.backend.wake()
        except BaseException as error:
            self.fail(error)

    # ---- engine's thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            begun = time.monotonic()
            self._take_place()
            self.backend.start()
            self.start_s = time.monotonic() - begun
            self.ready.set()
            while not self._stop:
                self._feed()
                for news in self.backend.step():
                    self._deliver(news)
        except BaseException as error:
            self.fail(error)

    def _take_place(self) -> None:
        """Call it before libraries are loaded: their threads inherit the CPUs of this one."""
        if not self.config.engine.placement.in_process:
            return
        share = pinning.quota()
        if share is not None and share < self.config.engine.threads:
            self.say(
                f"this container may use {share:g} of a processor and the engine computes with "
                f"{self.config.engine.threads}: it is stopped part of the time, and rates of a "
                "whole one may miss their limits"
            )
        cpus = pinning.apart(self.config.engine)
        if cpus.engine and pinning.keep_to(cpus.engine):
            self.cpus = cpus

    def _feed(self) -> None:
        """Give the engines new samples, as many as they take."""
        end, depth = len(self.book), self.backend.depth
        if depth is not None:
            end = min(end, self.book.completed + depth)
        if end <= self._fed:
            return
        if self._bar is None:
            self._bar = self.progress(len(self.book))
        fed, self._fed = self._fed, end
        if self._sorted is None:
            self.backend.submit(range(fed, end), self.book.indices[fed:end])
            return
        numbers = self._sorted.numbers(self.book.indices, fed, end)
        self.backend.submit(numbers, [self.book.indices[number] for number in numbers])

    def _deliver(self, news: News) -> None:
        import mlperf_loadgen

        now = time.perf_counter() - self._epoch
        # A sample that was given to a second engine has its first token already.
        started = self.book.has_first_token
        first = news.first.only([not started(number) for number in news.first.numbers])
        if first:
            self.book.note_first_tokens(first.numbers, now)
            mlperf_loadgen.FirstTokenComplete(self._responses(first))
        if news.completed:
            self._require_lengths(news.completed)
            responses = self._responses(news.completed)
            # Noted first: with the last response LoadGen ends the test, and the notes are read.
            self.book.note_answers(news.completed, now)
            mlperf_loadgen.QuerySamplesComplete(responses)
            if self._bar:
                self._bar.add(len(news.completed))
        self._last_progress = time.monotonic()

    def _require_lengths(self, batch: Batch) -> None:
        """Raises UserError: tokens beyond the limit would count as speed, but aren't an answer."""
        least, most = self.config.generation.words
        if least <= min(batch.counts) and max(batch.counts) <= most:
            return
        number, count = next(
            (number, count)
            for number, count in zip(batch.numbers, batch.counts, strict=True)
            if not least <= count <= most
        )
        raise UserError(
            f"sample {self.book.indices[number]} was answered with {count:,} {self._unit}, and "
            f"generation allows {least:,} to {most:,}: the engine doesn't keep to it, and the run "
            "is void"
        )

    @property
    def _unit(self) -> str:
        pictures = isinstance(self.config.generation, ImageGeneration)
        return "words of four bytes" if pictures else "tokens"

    def _responses(self, batch: Batch) -> list[Any]:
        """LoadGen copies the data behind the pointers before its call returns."""
        from mlperf_loadgen import QuerySampleResponse

        query_ids = self.book.query_ids
        sizes = [TOKEN_BYTES * count for count in batch.counts]
        return list(
            map(
                QuerySampleResponse,
                [query_ids[number] for number in batch.numbers],
                accumulate(sizes, initial=batch.tokens.buffer_info()[0]),
                sizes,
                batch.counts,
            )
        )


def watch(loop: EngineLoop, test: threading.Thread, look: Callable[[], None] | None = None) -> None:
    """Wait for LoadGen. Raises UserError as soon as the run is void, and what `look` raises."""
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
            raise UserError(f"{phrase}; the run is void, see the log for the engine's last message")


def wait_until_ready(loop: EngineLoop, limit_s: float) -> None:
    """Raises UserError if the engine fails to start or takes longer than its limit, which begins
    when nodes have what they are sent."""
    begun = time.monotonic()
    while not loop.ready.wait(min(limit_s, POLL_S)):
        if time.monotonic() > max(begun, loop.backend.sent_s) + limit_s:
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
