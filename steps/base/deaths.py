"""What ended a process that could not report it: a signal, and what most likely sent it."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from logging import LogRecord
from pathlib import Path

from steps.base.record import partial_directory

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
"""Sent by the kernel for what a process did, or by its own C library."""

SILENT = (signal.SIGKILL, *CRASHES)
"""A step can't report these itself; it reports the others."""

SHELL = 128
"""A shell and a container's init exit with this plus the number of the signal that ended their
process.
"""

CGROUP = Path("/sys/fs/cgroup")


def signal_of(status: int) -> signal.Signals | None:
    """The signal in an exit status of Python's subprocess (-9) or a container's (137)."""
    number = -status if status < 0 else status - SHELL
    try:
        found = signal.Signals(number)
    except ValueError:
        return None
    return found if status < 0 or found in SILENT else None


class Memory:
    """The kernel's counters of processes that it killed because memory ran out."""

    def __init__(self, proc: Path = Path("/proc"), cgroup: Path = CGROUP) -> None:
        self._proc, self._cgroup = proc, cgroup
        self._seen = self._counters()

    def cause(self) -> str:
        """The most likely cause of a SIGKILL since the last call."""
        before, now = self._seen, self._counters()
        self._seen = now
        rose = [place for place, count in now.items() if count > before.get(place, count)]
        if rose:
            limit = self._limit()
            return (
                f"the kernel killed it because memory ran out (oom_kill in {rose[0]} rose by "
                f"{now[rose[0]] - before[rose[0]]}{limit}); free memory, or give it more"
            )
        if not now:
            return "most likely the kernel, because memory ran out (check dmesg)"
        return (
            "the kernel's counters show enough memory, so somebody or something sent it: "
            "kill, a job's or a session's end"
        )

    def _counters(self) -> dict[str, int]:
        """Counts by file, the narrowest control group first."""
        found = {}
        for path in (*self._groups(), self._proc / "vmstat"):
            with contextlib.suppress(OSError, ValueError):
                for line in path.read_text(encoding="ascii").splitlines():
                    key, _, count = line.partition(" ")
                    if key == "oom_kill":
                        found[str(path)] = int(count)
        return found

    def _groups(self) -> Iterator[Path]:
        """This process's control groups, of either version."""
        with contextlib.suppress(OSError, ValueError):
            for line in (self._proc / "self/cgroup").read_text(encoding="utf-8").splitlines():
                _, kinds, place = line.split(":", 2)
                if not kinds:
                    yield self._cgroup / place.strip("/") / "memory.events"
                elif "memory" in kinds.split(","):
                    yield self._cgroup / "memory" / place.strip("/") / "memory.oom_control"

    def _limit(self) -> str:
        for path in self._groups():
            with contextlib.suppress(OSError, ValueError):
                size = int(path.with_name("memory.max").read_text(encoding="ascii"))
                return f", memory.max is {size / 2**30:.1f} GiB"
        return ""


def sentence(step: str, number: signal.Signals, log: str, memory: str, kept: str) -> str:
    """The message for a user; `memory` is the cause if the signal is SIGKILL."""
    if number == signal.SIGKILL:
        cause = memory
    elif number in CRASHES:
        cause = "native code crashed: an engine, a driver or a library"
    else:
        cause = "somebody or something sent it"
    return f"{step}: its process was ended by {number.name}: {cause}; log: {log}; {kept}"


class Deaths:
    """Gets every record of Snakemake's log; reports which job's process a signal ended."""

    def __init__(self) -> None:
        self._memory = Memory()

    def heard(self, record: LogRecord) -> str | None:
        """A sentence if the record is about such a job; it is added to the job's log.

        Snakemake makes the record while it handles the exception that has the exit status.
        """
        status = _status(sys.exc_info()[1])
        event = getattr(getattr(record, "event", None), "name", None)
        if event != "JOB_ERROR" or status is None or status >= 0:
            return None
        number = signal_of(status)
        if number is None:
            return None
        output, log = Path(record.__dict__["output"][0]), record.__dict__["log"][0]
        text = sentence(
            record.__dict__["rule_name"], number, log, self._memory.cause(), kept(output.parent)
        )
        with contextlib.suppress(OSError), Path(log).open("a", encoding="utf-8") as stream:
            stream.write(f"error: {text}\n")
        return text


def kept(destination: Path) -> str:
    """What the next run will find after a step was interrupted."""
    if partial_directory(destination).exists():
        return "finished parts are kept and the next run continues from there"
    return "nothing was kept and the next run starts again"


def _status(error: BaseException | None) -> int | None:
    """The exit status of the process that the error is about."""
    while error is not None:
        if isinstance(error, subprocess.CalledProcessError):
            return error.returncode
        error = error.__cause__ or error.__context__
    return None
