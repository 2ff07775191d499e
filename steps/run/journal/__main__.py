"""A run's journal, its own process: `python -S -m steps.run.journal FILE ORDER`.

It prints "ready" when it has read the state before the test, reads the test's begin (in s of the
monotonic clock) and then adds a line of JSON to FILE every second, until its standard input closes
or the run's process is gone. A value that it can't read doesn't end it: that column is missing.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from steps.base.processes import die_with_parent
from steps.run.journal.accelerators import Accelerators
from steps.run.journal.caches import Caches
from steps.run.journal.host import Memory, Own, Pressure, Processors, Sensors
from steps.run.journal.order import Order

PERIOD_S = 1.0
LEAST_S = 0.2
"""The least seconds of a last line with more than compiled files: ticks are hundredths."""


class Reading(Protocol):
    def missing(self) -> str | None: ...
    def read(self) -> dict[str, Any]: ...


def readings(order: Order, root: Path = Path("/")) -> list[Reading]:
    own = Own(root / "proc", order.run, elsewhere=order.engines_elsewhere, share=order.share)
    found: list[Reading] = [
        Processors(root, order.cpus, own),
        Pressure(root),
        Memory(root),
        Sensors(root, order.cpus, order.share),
        Caches(order.caches, order.passing, order.share),
    ]
    if order.tool:
        asked = order.tool_limit_s, order.tool_share, order.tool_failures
        found.append(Accelerators(order.tool, *asked))
    return found


def keep(path: Path, order: Order) -> None:
    """Write lines until the run is over."""
    sources = readings(order)
    caches = next(source for source in sources if isinstance(source, Caches))
    for source in sources:
        _read(source)  # counters begin
    print("ready", flush=True)
    line = sys.stdin.readline()
    if not line.strip():
        return
    begun = float(line)
    for source in sources:
        _read(source)
    with path.open("a", encoding="utf-8", buffering=1) as out:
        lacks = [words for source in sources if (words := source.missing())]
        last = begun
        for moment in _seconds(begun, order.run):
            late = [] if moment else caches.last()
            noted: dict[str, Any] = {"missing": lacks} if lacks else {}
            lacks = []
            if moment or time.monotonic() - last >= LEAST_S:
                for source in sources:
                    noted |= _read(source)
            elif not late:
                break
            files = noted.get("compiled", []) + late
            if files:
                noted["compiled"] = [(name, path, round(at - begun, 3)) for name, path, at in files]
            last = time.monotonic()
            out.write(json.dumps({"s": round(last - begun, 3), **noted}) + "\n")
    for source in sources:
        if isinstance(source, Accelerators):
            source.close()


def _read(source: Reading) -> dict[str, Any]:
    try:
        return source.read()
    except (OSError, ValueError, LookupError, ArithmeticError):
        return {}  # a file of /proc in a form that isn't known here


def _seconds(begun: float, run: int) -> Iterator[float | None]:
    """Yields at every full second of the test; None, once, when it is over."""
    due = begun + PERIOD_S
    while True:
        left = max(due - time.monotonic(), 0.0)
        ended, _, _ = select.select([sys.stdin], [], [], left)
        if ended or os.getppid() != run:
            yield None
            return
        yield due
        due += PERIOD_S * max(1, -(-(time.monotonic() - due) // PERIOD_S))


def main() -> int:
    die_with_parent(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGHUP):  # of the terminal: the run says when it is over
        signal.signal(number, signal.SIG_IGN)
    path, order = sys.argv[1:]
    with contextlib.suppress(BrokenPipeError):
        keep(Path(path), Order.of(order))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
