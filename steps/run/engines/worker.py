"""An engine's process. `python -m steps.run.engines.worker --socket FD` serves an inherited socket,
`--connect HOST PORT NUMBER` connects to LoadGen's process, whose key it reads from stdin.

Its main thread drives the engine and nothing else. A second one reads messages from LoadGen's
process, and ends this process as soon as that is gone, whatever the engine is doing; a third sends
signs of life.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Client, Connection
from queue import SimpleQueue
from typing import Any, NoReturn

from steps import ROOT
from steps.base.errors import UserError
from steps.run.engines import accelerators, caches, pinning, wire
from steps.run.engines.engine import (
    Engine,
    News,
    asked,
    hold_off_collections,
    started,
    unstopped,
)
from steps.run.engines.pace import Pace


class Worker:
    """One engine behind one connection."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._inbox: SimpleQueue[wire.Submit] = SimpleQueue()

    def serve(self) -> NoReturn:
        """Serve until the other side is gone; then the process ends."""
        assignment = wire.receive(self._connection)
        assert isinstance(assignment, wire.Assignment)
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        try:
            self._place = pinning.take_place(assignment.start.config, assignment.place)
            if assignment.start.caches and self._place.devices:
                folder = ROOT / assignment.start.caches / f"engine-{assignment.start.number}"
                os.environ.update(caches.use(folder))
            engine = self._started(assignment)
            prompts, stops = map(wire.unpacked, (assignment.prompts, assignment.stops))
            self._drive(engine, prompts, stops)
        except UserError as error:
            self._last_words(wire.Failed(str(error), expected=True))
        except Exception as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {str(error)[:200]}"
            self._last_words(wire.Failed(text, expected=False))
        _leave(1)

    def _started(self, assignment: wire.Assignment) -> Engine:
        begun = time.monotonic()
        warmup = wire.unpacked(assignment.warmup)
        engine = started(assignment.start, warmup)
        rate = measured_rate(engine, warmup)
        seconds = time.monotonic() - begun
        hold_off_collections()
        place = self._place
        self._say(
            wire.Ready(
                engine.identity(),
                engine.resolved(),
                engine.device(),
                place.devices,
                engine.threads(),
                seconds,
                rate,
                bus=accelerators.got() if place.devices else (),
                cpus=pinning.listed(place.cpus) if place.devices else "",
                memory=place.memory,
            )
        )
        return engine

    def _drive(self, engine: Engine, prompts: "list[Any]", stops: "list[Any]") -> NoReturn:
        outstanding, pace = 0, Pace()
        while True:
            while not outstanding or not self._inbox.empty():
                given = self._inbox.get()
                engine.submit(asked(given.numbers, given.indices, prompts, stops))
                outstanding += len(given.numbers)
            begun = time.perf_counter()
            events = engine.step()
            if not events.idle:
                pace.step(begun, time.perf_counter())
            if pace.slow:
                steps, now = pace.taken(), time.perf_counter()
                self._say(wire.SlowSteps(steps, [now - step.at for step in steps]))
            if events.first or events.completed:
                outstanding -= len(events.completed)
                for news in News.of(events):
                    self._say(news)

    def _listen(self) -> None:
        try:
            while True:
                message = wire.receive(self._connection)
                assert isinstance(message, wire.Submit)
                self._inbox.put(message)
        except (EOFError, OSError):
            _leave(0)

    def _beat(self) -> None:
        while True:
            time.sleep(wire.HEARTBEAT_S)
            self._say(wire.Alive())

    def _say(self, message: wire.Message) -> None:
        try:
            with self._sending:
                wire.send(self._connection, message)
        except OSError:
            _leave(0)

    def _last_words(self, message: wire.Failed) -> None:
        with contextlib.suppress(OSError), self._sending:
            wire.send(self._connection, message)


def measured_rate(engine: Engine, warmup: "list[Any]") -> float:
    """Tokens per second of one sample, with the warm-up's number of samples at once."""
    begun = time.perf_counter()
    engine.submit(unstopped(warmup))
    tokens, seconds, missing = 0, 0.0, len(warmup)
    while missing:
        for _, answer in engine.step().completed:
            missing -= 1
            tokens += len(answer)
            seconds += time.perf_counter() - begun
    return tokens / seconds if seconds else 1.0


def _leave(status: int) -> NoReturn:
    """Exit at once: engines leave threads whose shutdown may hang."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def main() -> NoReturn:
    # Ctrl-C goes to the whole group; LoadGen's process says what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kind, *where = sys.argv[1:]
    connection: Connection[Any, Any]
    if kind == "--socket":
        connection = Connection(int(where[0]))
    else:
        host, port, number = where
        key = bytes.fromhex(sys.stdin.read())
        connection = Client((host, int(port)), authkey=key)
        wire.send(connection, wire.Hello(int(number)))
    Worker(connection).serve()


if __name__ == "__main__":
    main()
