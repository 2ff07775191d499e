"""LoadGen's side of engines on other nodes: steps.run.placing.nodes starts them, they connect.

Connections are authenticated by a key made for the run (HMAC, by multiprocessing.connection); the
traffic isn't encrypted, like everything else between the nodes of such a cluster.
"""

import contextlib
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steps import ROOT
from steps.base.errors import UserError
from steps.config.engine import SSH, Placement
from steps.run.engines.link import Link
from steps.run.placing.door import Door
from steps.run.placing.launch import AGAIN, SLURM, Order, Reply, engines_of

JOIN_SHARE = 0.75
"""Share of the time for a start; a missing node must be reported before the engines are late."""

END_S = 10.0
"""How long the cluster's side may take to end; a local one stops every node."""


NODES_S = 90.0
"""How long all nodes' tools may take to say what accelerators are set to."""

LISTEN_S = 0.5
"""How long engines are waited for before it is asked whether their nodes still are there."""


PLACER = (sys.executable, "-m", "steps.run.placing.nodes")


class Beside:
    """The process that places engines, beside LoadGen's."""

    def __init__(self, command: Sequence[str] = PLACER) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )

    def fileno(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            # A session of its own, so what it was starting ends with it.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Outside:
    """The same outside of the container that LoadGen runs in (steps/run/placing/outside.py)."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(END_S)
        self._socket.connect(str(path))

    def fileno(self) -> int:
        return self._socket.fileno()

    def tell(self, line: str) -> None:
        self._socket.sendall(line.encode() + b"\n")

    def close(self) -> None:
        """Its end closes the connection, which is waited for."""
        with self._socket, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(1 << 16):
                pass


def _outside(path: Path | None) -> Outside | None:
    """None for a run that isn't in a container: no socket, or one that a killed run left."""
    if path is None or not path.exists():
        return None
    try:
        return Outside(path)
    except OSError:
        return None


class Cluster:
    """The nodes of one run."""

    def __init__(
        self, placement: Placement, limit_s: float, weights: str = "", outside: Path | None = None
    ) -> None:
        """`weights`: the manifest of what engines load, as a path in the checkout. `outside`: the
        socket of what places engines for a run in a container; it is there only for such a run.
        """
        self._placement = placement
        self._seats = placement.seats
        self._limit_s = limit_s * JOIN_SHARE
        self._weights = weights
        self._outside = outside
        self._placer: Beside | Outside | None = None
        self._said = b""
        self.exposed: tuple[str, ...] = ()
        """Sentences for the result about what others on the network could reach."""
        self.notes: tuple[str, ...] = ()
        """Sentences about nodes that differ in what keeps no run from starting."""
        self.sent_s = 0.0
        """When nodes were last sent something that they lack, of time.monotonic."""

    def links(self) -> list[Link]:
        """A connection to every engine of every node, in order. Raises UserError."""
        key = secrets.token_bytes(32)
        self._begin(key)
        door = self._door(self._reply().host or "", key)
        limit = time.monotonic() + self._limit_s  # what nodes lacked took its own time
        try:
            self._tell(f"{door.port}")
            reply = self._reply()
            self.exposed += reply.exposed
            self.notes = reply.notes
            return self._connected(door, reply.addresses, limit)
        finally:
            door.close()

    def nodes(self) -> tuple[dict[str, Any], ...]:
        """What accelerators the nodes have and what they are set to now, node by node; nothing of a
        CPU's and of a cluster of Ray. Never raises: an answer that doesn't come costs no result."""
        if self._placement.cluster not in (SSH, SLURM) or not self._placement.kinds:
            return ()
        self._tell(AGAIN)
        try:
            line = self._line(limit_s=NODES_S)
        except UserError:
            return ()
        return Reply.model_validate_json(line).nodes if line else ()

    def close(self) -> None:
        """End what was started on the nodes; engines have ended with their connections."""
        if self._placer is not None:
            self._placer.close()

    def _begin(self, key: bytes) -> None:
        order = Order(
            address=self._placement.cluster,
            engines=engines_of(self._placement),
            kinds=self._placement.kinds,
            hosts=self._placement.hosts,
            checkout=self._placement.checkout or str(ROOT),
            key=key.hex(),
            limit_s=self._limit_s,
            weights=self._weights,
        )
        self._placer = _outside(self._outside) or Beside()
        self._tell(order.model_dump_json())

    def _tell(self, line: str) -> None:
        assert self._placer is not None
        with contextlib.suppress(OSError):  # what it says instead, or its silence, is read
            self._placer.tell(line)

    def _reply(self) -> Reply:
        while (reply := Reply.model_validate_json(self._line())).working:
            self.sent_s = time.monotonic()
            print(reply.working, file=sys.stderr, flush=True)
        if reply.error:
            raise UserError(reply.error)
        return reply

    def _line(self, limit_s: float | None = None) -> bytes:
        """The next line of the process, which keeps the same limit itself and says what it waited
        for: so it gets END_S more; b"" if none came within a `limit_s` of its own. Raises
        UserError."""
        assert self._placer is not None
        pipe = self._placer.fileno()
        until = time.monotonic() + (self._limit_s + END_S if limit_s is None else limit_s)
        while b"\n" not in self._said:
            ready, _, _ = select.select([pipe], [], [], max(until - time.monotonic(), 0.0))
            if not ready and limit_s is not None:
                return b""
            if not ready:
                raise UserError(
                    f"the process that starts the nodes said nothing in {self._limit_s:.0f} s; see "
                    "the log, and run again"
                )
            if not (part := os.read(pipe, 1 << 16)):
                raise UserError(
                    "the process that starts the nodes ended; see the log for its message"
                )
            self._said += part
        line, _, self._said = self._said.partition(b"\n")
        return line

    def _door(self, host: str, key: bytes) -> Door:
        """Listen on the address that the nodes use for this machine, if it is one of its own."""
        engines = len(self._seats)
        if not host:
            self.exposed += (
                "LoadGen's process listened for engines on every interface, as the "
                "address that the nodes use for this machine isn't known",
            )
        try:
            return Door(host, key, engines)
        except OSError as error:
            self.exposed += (
                f"LoadGen's process listened for engines on every interface, as {host} isn't an "
                f"address of this machine ({error.strerror})",
            )
            return Door("", key, engines)

    def _connected(self, door: Door, addresses: tuple[str, ...], limit: float) -> list[Link]:
        found: dict[int, Link] = {}
        while len(found) < len(self._seats):
            arrived = door.next(min(limit, time.monotonic() + LISTEN_S))
            if arrived is None:
                if line := self._line(limit_s=0.0):
                    raise UserError(Reply.model_validate_json(line).error or "the nodes ended")
                if time.monotonic() < limit:
                    continue
                missing = next(n for n in range(len(self._seats)) if n not in found)
                node = self._seats[missing].node
                raise UserError(
                    f"engine {missing} on node {node} ({addresses[node]}) did not connect; is the "
                    "checkout at the same path on every node, and no firewall between them?"
                )
            number, connection = arrived
            node = self._seats[number].node
            kind = self._placement.kind(node)
            where = f"{addresses[node]}, {kind.hardware}" if kind else addresses[node]
            name = f"engine {number} on node {node} ({where})"
            found[number] = Link(name, connection, None)
        return [found[number] for number in sorted(found)]
