"""LoadGen's end of an engine's process: starts it, talks to it, and explains its death."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from steps import ROOT
from steps.base.processes import STOPPED, state
from steps.run.engines import wire

LAST_WORDS_S = 2.0
"""How long a process whose connection is closed has to end, before it is killed."""


class Still(OSError):
    """The process is there, and neither takes nor says anything."""


class Link:
    """One engine's process; `name` is for errors, `process` is None on other nodes."""

    def __init__(
        self,
        name: str,
        connection: "Connection[Any, Any]",
        process: "subprocess.Popen[bytes] | None",
    ) -> None:
        self.name = name
        self.connection = connection
        self._process = process
        self._closed = False
        self._limit_s = 0.0
        self._heard_s = time.monotonic()

    @classmethod
    def to_process(cls, name: str) -> "Link":
        """A new process on this machine, in a session of its own: what it starts ends with it."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "steps.run.engines.worker",
                    "--socket",
                    str(theirs.fileno()),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                start_new_session=True,
            )
        return cls(name, Connection(ours.detach()), process)

    def fileno(self) -> int:
        return self.connection.fileno()

    def limit(self, limit_s: float) -> None:
        """From now on a message that goes on for so long on neither side isn't waited for."""
        self._limit_s = limit_s
        seconds, rest = divmod(limit_s, 1)
        packed = struct.pack("ll", int(seconds), int(rest * 1e6))
        with socket.socket(fileno=os.dup(self.fileno())) as ours:
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                ours.setsockopt(socket.SOL_SOCKET, option, packed)

    def send(self, message: wire.Message) -> None:
        """Raises OSError if the process is gone, Still if it takes nothing."""
        try:
            wire.send(self.connection, message)
        except BlockingIOError as error:
            raise Still(
                f"took nothing and gave no sign of life for {self._limit_s:.0f} s"
            ) from error

    def receive(self) -> wire.Message:
        """Raises EOFError or OSError if the process is gone, Still if it ends in mid-message."""
        try:
            message = wire.receive(self.connection)
        except BlockingIOError as error:
            raise Still(
                f"stopped in mid-message and gave no sign of life for {self._limit_s:.0f} s"
            ) from error
        self._heard_s = time.monotonic()
        return message

    def silent_s(self) -> float:
        """Seconds since its last message."""
        return time.monotonic() - self._heard_s

    def stopped(self) -> bool:
        """Whether a signal has stopped it; False, as unknown, for a process on another node."""
        return self._process is not None and state(self._process.pid) == STOPPED

    def close(self) -> None:
        """Tell the process that it is no longer needed."""
        if not self._closed:
            self._closed = True
            self.connection.close()

    def end(self) -> str:
        """Close, wait a little, kill. Returns how the process ended, as far as known here."""
        self.close()
        if self._process is None:
            return "closed its connection"
        try:
            status = self._process.wait(LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            status = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if status is None:
            return "didn't end by itself"
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with status {status}"
