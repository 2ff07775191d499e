"""Answers LoadGen's samples: one engine in this process, or a fleet of them in others."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from steps.config.resolved import Resolved
from steps.config.run_results import Report
from steps.run.engines.engine import News, Start, asked, depth, started
from steps.run.engines.pace import Pace, Slow

POLL_S = 0.2
"""How long a step waits for work or events before it returns with nothing."""


@dataclass(frozen=True)
class Job:
    """The work that a run gives its engines: `prompts` holds token ids per sample index, `stops`
    the sequence that ends its answer, and nothing where the dataset has none. `manifest`: of the
    weights, as a path in the checkout; "": nodes don't compare theirs. `outside`: see
    steps/run/placing/cluster.py."""

    start: Start
    prompts: Sequence[Sequence[int]]
    stops: Sequence[Sequence[int]]
    warmup: Sequence[Sequence[int]]
    say: Callable[[str], None]
    """Takes one line about the progress of a start."""
    manifest: str = ""
    outside: Path | None = None


class Backend(Protocol):
    """Used by one thread; other threads may call `wake`."""

    depth: int | None
    """The most samples that it takes; None: it keeps its own queue."""

    @property
    def sent_s(self) -> float:
        """When nodes were last sent something that they lack, of time.monotonic; 0.0: never."""

    def start(self) -> None:
        """Be ready for samples. Raises UserError, which names the engine, if that fails."""

    def submit(self, numbers: Sequence[int], indices: Sequence[int]) -> None:
        """Samples by number and index in the dataset; a number is answered once."""

    def step(self) -> Iterable[News]:
        """Wait for events, about POLL_S at most. Raises UserError if one voids the run."""

    def wake(self) -> None:
        """Make a waiting step return, because there are new samples. Any thread may call this."""

    def identity(self) -> dict[str, str]:
        """Name, version and device of the engines, for the result."""

    def resolved(self) -> Resolved:
        """What the first engine made of its settings, with the differences of all of them."""

    def threads(self) -> int:
        """Threads of arithmetic of each engine."""

    def slow(self) -> list[tuple[int, Slow]]:
        """Steps of the engines' that took many times their median, each with its engine's number;
        moments of an engine on another node are those of its messages."""

    def report(self) -> Report:
        """For the result: the engines and their problems."""

    def nodes(self) -> tuple[dict[str, Any], ...]:
        """What accelerators other nodes have and what they are set to now, node by node; none for
        engines on this machine. Any one thread may call this, not during a test."""

    def close(self) -> None:
        """Leave no process behind. Any thread may call this."""


class InProcess:
    """One engine in this process: nothing is between it and LoadGen."""

    sent_s = 0.0

    def __init__(self, job: Job) -> None:
        self.depth: int | None = depth(job.start.config)
        self._job = job
        self._outstanding = 0
        self._news = threading.Event()
        self._pace = Pace()

    def start(self) -> None:
        self._engine = started(self._job.start, self._job.warmup)
        self._resolved = self._engine.resolved()

    def submit(self, numbers: Sequence[int], indices: Sequence[int]) -> None:
        self._outstanding += len(numbers)
        self._engine.submit(asked(numbers, indices, self._job.prompts, self._job.stops))

    def step(self) -> Iterable[News]:
        if not self._outstanding:
            self._news.wait(POLL_S)
            self._news.clear()
            return []
        begun = time.perf_counter()
        events = self._engine.step()
        if not events.idle:
            self._pace.step(begun, time.perf_counter())
        if not events.first and not events.completed:
            return []
        self._outstanding -= len(events.completed)
        return News.of(events)

    def wake(self) -> None:
        if not self._news.is_set():
            self._news.set()

    def identity(self) -> dict[str, str]:
        return self._engine.identity()

    def resolved(self) -> Resolved:
        return self._resolved

    def threads(self) -> int:
        return self._engine.threads()

    def slow(self) -> list[tuple[int, Slow]]:
        return [(0, step) for step in self._pace.slow]

    def report(self) -> Report:
        return Report(engines=(), failures=(), degraded=())

    def nodes(self) -> tuple[dict[str, Any], ...]:
        return ()

    def close(self) -> None:
        """The engine ends with the process."""
