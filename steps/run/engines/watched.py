"""Which of the variables that a run sets does the engine's process read?

Reads in Python go through os.environ. What native code reads can't be seen, but a library has to
hold the name of a variable that it asks for.
"""

import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from steps.config.resolved import State

WHOLE = ("compile_factors", "compute_hash", "enable_envs_cache", "validate_environ")
"""Functions of vLLM that go through its whole table and use none of it."""

UP = 8
"""How many callers are looked at."""

MAPS = Path("/proc/self/maps")
PART = 64 << 20
OVERLAP = 256
"""Bytes that are looked at twice: more than a name has."""


class Watch:
    """What was read since it was made, of these names."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = frozenset(names)
        self.read: set[str] = set()
        self.listed: set[str] = set()

    def note(self, name: str) -> None:
        if any(caller in WHOLE for caller in _callers()):
            self.listed.add(name)
        else:
            self.read.add(name)

    def states(self) -> dict[str, State]:
        """The state of each; what other processes of the engine read isn't seen here."""
        left = self.names - self.read - self.listed
        held = in_libraries(left)
        missing: State = "unseen" if multiprocessing.active_children() else "unread"
        return {
            **dict.fromkeys(sorted(left - held), missing),
            **dict.fromkeys(sorted(left & held), "in a library"),
            **dict.fromkeys(sorted(self.listed - self.read), "listed"),
            **dict.fromkeys(sorted(self.read), "read"),
        }


def _callers() -> Iterator[str]:
    """Names of the functions that led to a read, from the one that asked for it."""
    frame = sys._getframe(3)
    for _ in range(UP):
        yield frame.f_code.co_name
        if frame.f_back is None:
            return
        frame = frame.f_back


def watch(names: Collection[str]) -> Watch:
    """Watch os.environ of this process from now on. Only names are noted."""
    found = Watch(names)
    kind: Any = type(os.environ)
    awaited = threading.local()

    class Watched(kind):  # type: ignore[misc]
        def keys(self) -> Any:
            """dict(os.environ) asks for these, and then for each value in their order: code that
            copies everything, as vLLM does for its processes, asks for nothing."""
            names = super().keys()
            awaited.names = list(names)[::-1]
            return names

        def items(self) -> Any:
            return dict(self).items()

        def values(self) -> Any:
            return dict(self).values()

        def __getitem__(self, name: str) -> str:
            left: list[str] = getattr(awaited, "names", [])
            copied = bool(left) and left[-1] == name
            if copied:
                left.pop()
            elif left:
                awaited.names = []
            if not copied and name in found.names and name not in found.read:
                found.note(name)
            return str(super().__getitem__(name))

    os.environ.__class__ = Watched
    return found


def in_libraries(names: Collection[str], maps: Path = MAPS) -> set[str]:
    """Those that a library which this process has loaded holds, and not within a longer name."""
    if not names:
        return set()
    # Not every language ends a text with a zero.
    either = b"|".join(re.escape(name.encode()) for name in names)
    wanted = re.compile(rb"(?<![A-Z0-9_])(?:" + either + rb")(?![A-Z0-9_])")
    found: set[str] = set()
    for path in loaded_libraries(maps):
        found |= {name.decode() for name in _held(path, wanted)}
        if len(found) == len(names):
            break
    return found


def loaded_libraries(maps: Path = MAPS) -> Iterator[str]:
    """Paths of the shared libraries that this process has loaded."""
    try:
        lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    paths = dict.fromkeys(line.split(maxsplit=5)[-1] for line in lines if " /" in line)
    yield from (path for path in paths if ".so" in path)


def _held(path: str, wanted: "re.Pattern[bytes]") -> set[bytes]:
    found: set[bytes] = set()
    try:
        with open(path, "rb") as stream:
            part = b""
            while more := stream.read(PART):
                part = part[-OVERLAP:] + more
                found |= set(wanted.findall(part))
    except OSError:
        pass  # deleted since it was loaded
    return found


def differences(states: Mapping[str, State], unread: Collection[str]) -> Iterator[str]:
    """Variables of whose reading the configuration is wrong, a sentence each."""
    for name, state in states.items():
        if state == "unread" and name not in unread:
            yield f"environment.{name}: nothing in the engine's process read it"
        if state == "read" and name in unread:
            yield f"environment.{name}: engine.unread says that it isn't read, and it was"
