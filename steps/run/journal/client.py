"""A run's side of its journal: starts the process that writes it, and adds what engines tell.
An error of a journal is a sentence; the run continues without one.
"""

import getpass
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from steps import ROOT
from steps.config.engine import EngineSettings
from steps.config.journal import JournalSettings
from steps.config.run_results import Kept
from steps.machine.probes.machine import Prober, vendors
from steps.machine.probes.tools import program
from steps.run.engines.pace import Slow
from steps.run.journal.lines import JOURNAL
from steps.run.journal.order import Order, Tool

READY_S = 10.0
"""How long the process may take to be ready; the test waits for it."""

END_S = 3.0
NO_ACCELERATOR = ("cpu", "none")
"""The `device` of engines that compute on no accelerator."""


class Keeper:
    """The process; None if it didn't start."""

    def __init__(self, folder: Path, order: Order, say: Callable[[str], None]) -> None:
        self.path = folder / JOURNAL
        self._cores = len(order.cpus)
        self._say = say
        self._process = self._started(order)
        self._begun = self._ended = 0.0

    def _started(self, order: Order) -> "subprocess.Popen[str] | None":
        try:
            process = subprocess.Popen(
                [sys.executable, "-S", "-m", "steps.run.journal", str(self.path), order.text()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
        except OSError as error:
            self._say(f"warning: the run keeps no journal ({error.strerror})")
            return None
        assert process.stdout is not None
        there, _, _ = select.select([process.stdout], [], [], READY_S)
        if there and process.stdout.readline():
            return process
        process.kill()
        process.wait()
        self._say(f"warning: the run keeps no journal: its process wasn't ready in {READY_S:g} s")
        return None

    def begin(self, moment: float) -> None:
        """The test begins, by time.perf_counter, which is the monotonic clock."""
        self._begun = moment
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write(f"{moment!r}\n")
                self._process.stdin.flush()

    def end(self) -> None:
        self._ended = time.perf_counter()
        if self._process is None or self._process.poll() is not None:
            return
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def finish(self, slow: Sequence[tuple[int, Slow]]) -> Kept | None:
        """After the end, with the engines' slow steps, which go into the file too; None if there
        isn't a file, or, with a sentence, if it can't be written."""
        if self._process is None:
            return None
        try:
            with self.path.open("a", encoding="utf-8") as out:
                for number, step in sorted(slow, key=lambda pair: pair[1].at):
                    if step.at > self._begun:
                        out.write(self._line(number, step))
        except OSError as error:
            self._say(f"warning: {self.path} can't be written ({error.strerror})")
            return None
        return Kept(cores=self._cores, whole_s=round(self._ended - self._begun, 3))

    def _line(self, number: int, step: Slow) -> str:
        noted = {
            "step": number,
            "s": round(step.at - self._begun, 3),
            "took_s": round(step.took_s, 3),
            "times": round(step.times, 1),
        }
        return json.dumps(noted) + "\n"


@contextmanager
def kept(
    folder: Path,
    settings: JournalSettings,
    engine: EngineSettings,
    device: str,
    cpus: Sequence[int],
    say: Callable[[str], None],
) -> Iterator[Keeper]:
    """A journal for what happens within. `device`: the engines' own."""
    keeper = Keeper(folder, order_of(settings, engine, device, cpus), say)
    try:
        yield keeper
    finally:
        keeper.end()


def order_of(
    settings: JournalSettings, engine: EngineSettings, device: str, cpus: Sequence[int]
) -> Order:
    accelerated = device not in NO_ACCELERATOR
    return Order(
        run=os.getpid(),
        cpus=tuple(sorted(cpus)),
        engines_elsewhere=engine.placement.cluster != "none",
        tool=_tool() if accelerated else None,
        tool_limit_s=settings.tools.limit_s,
        tool_share=settings.tools.share,
        tool_failures=settings.tools.failures,
        caches=tuple(_caches(settings, engine, accelerated=accelerated)),
        passing=settings.passing,
        share=settings.share,
    )


def _caches(
    settings: JournalSettings, engine: EngineSettings, *, accelerated: bool
) -> Iterator[tuple[str, str]]:
    for cache in settings.caches:
        place = engine.environment.get(cache.variable) or (accelerated and cache.usual)
        if place:
            yield cache.name, os.path.expanduser(place.replace("{user}", _user()))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def _tool() -> Tool | None:
    """The tool of the present accelerators' vendor, called as in steps/machine/probes."""
    found = vendors(Prober())
    if "NVIDIA" in found:
        return "nvidia-smi"
    if "AMD" in found:
        return "amd-smi" if program("amd-smi") else "rocm-smi"
    return None
