"""Processes of this machine, as /proc shows them."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""

STOPPED = "T"
"""State of a process that got SIGSTOP or SIGTSTP; a debugger's is "t"."""

GONE = ("", "Z", "X")

GONE_POLL_S = 0.02

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a run in good order."""

STOPPED_S = 10.0
"""How long a stopped process may be continued; then it is ended, so that nothing waits without
limit.
"""

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
"""The kernel's unit of processor time."""


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """This process, or the program that it is about to start, gets a signal when its parent ends.

    More exactly: when the thread ends that started it.
    """
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, number)


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat, from the state on; empty if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def state(pid: int) -> str:
    """The state as one letter, as ps shows it; "" if there is no such process."""
    return (_fields(pid) or [""])[0]


def identity(pid: int) -> str:
    """An identity that no other process has, even after a restart of the machine; "" if absent."""
    fields = _fields(pid)
    if not fields or fields[0] in GONE:
        return ""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return f"{pid}-{fields[19]}-{boot[:8]}"


def name(pid: int) -> str:
    """The name that ps shows; "" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def command(pid: int) -> list[str]:
    """The words of its command line; none if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return text.rstrip("\0").split("\0")


def children(pid: int) -> list[int]:
    """Those of all its threads; none if there is no such process."""
    found = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    for thread in threads:
        try:
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii")
        except OSError:  # a thread that ended meanwhile
            continue
        found += [int(child) for child in text.split()]
    return found


def below(pid: int) -> Iterator[int]:
    """A process's descendants."""
    for child in children(pid):
        yield child
        yield from below(child)


def with_variable(name: str, value: str) -> list[int]:
    """Processes that were started with this variable in their environment."""
    wanted, found = f"{name}={value}".encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def variable(pid: int, name: str) -> str:
    """A variable that a process was started with; "" if it has none, ended or is another user's."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    start = f"{name}=".encode()
    found = next((word for word in words if word.startswith(start)), start)
    return found.removeprefix(start).decode(errors="replace")


def killed(pids: list[int], limit_s: float) -> list[int]:
    """Send SIGKILL and wait. Returns the processes that still exist."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    limit = time.monotonic() + limit_s
    while (left := [pid for pid in pids if state(pid) not in GONE]) and time.monotonic() < limit:
        time.sleep(GONE_POLL_S)
    return left
