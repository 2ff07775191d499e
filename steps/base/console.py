"""A step's two audiences: its log file gets everything, the terminal gets progress and errors."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from steps.base.errors import plain

LINE_INTERVAL_S = 30.0
"""Without a terminal, progress is a line at most this often."""


class _Plain:
    """A stream that removes every escape sequence from what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(plain(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def plain_output() -> Iterator[None]:
    """Printed text can't move the cursor, colour or hide anything.

    Names of files, logs and servers' answers come from strangers, and many messages quote them.
    """
    with (
        contextlib.redirect_stdout(cast(TextIO, _Plain(sys.stdout))),
        contextlib.redirect_stderr(cast(TextIO, _Plain(sys.stderr))),
    ):
        yield


GO_ON = "./reproduce goes on from what is finished"


def say(text: str) -> None:
    """A line to standard error, which may be a terminal that is gone."""
    with contextlib.suppress(OSError):
        print(plain(text), file=sys.stderr, flush=True)


class Console:
    """The terminal, kept aside while file descriptors 1 and 2 point at the log file.

    Engines and their libraries write to the descriptors themselves, so replacing `sys.stdout`
    would not catch them.
    """

    def __init__(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self._terminal: TextIO = os.fdopen(os.dup(2), "w", buffering=1)
        # At the end, whoever else writes there: engines outlive a killed step by a moment.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        descriptor = os.open(log, flags, 0o644)
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)

    def say(self, text: str) -> None:
        """One line to the terminal and to the log."""
        self._terminal.write(plain(text) + "\n")
        print(plain(text), flush=True)

    def progress(self, label: str, total: int, unit: str = "samples") -> "Progress":
        """A bar with time left on a terminal, a line every half minute elsewhere."""
        return Progress(self._terminal, label, total, unit)


class Progress:
    """Counts towards `total`; cheap enough to update on every completed sample."""

    def __init__(self, terminal: TextIO, label: str, total: int, unit: str) -> None:
        self._terminal = terminal
        self._label = label
        self._total = max(total, 1)
        self._unit = unit
        self._done = 0
        self._start = time.monotonic()
        self._shown = 0.0
        self._interval = 0.5 if terminal.isatty() else LINE_INTERVAL_S

    def add(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._shown >= self._interval:
            self._shown = now
            self._show(now)

    def close(self) -> None:
        """Draw the final state and leave the line."""
        self._show(time.monotonic())
        if self._terminal.isatty():
            self._terminal.write("\n")

    def _show(self, now: float) -> None:
        share = min(self._done / self._total, 1.0)
        elapsed = now - self._start
        left = f"{elapsed / share - elapsed:.0f} s left" if share > 0.01 else "starting"
        count = f"{self._done:,}/{self._total:,} {self._unit}"
        if self._terminal.isatty():
            bar = "#" * round(share * 24)
            line = f"\r{self._label:<44.44} [{bar:<24}] {share:4.0%} {count}, {left}\x1b[K"
            self._terminal.write(line)
            self._terminal.flush()
        else:
            self._terminal.write(f"{self._label}: {share:.0%}, {count}, {left}\n")
