"""LoadGen's side of engines on other nodes: steps.run.placing.nodes starts them, they connect.

Connections are authenticated by a key made for the run (HMAC, by multiprocessing.connection); the
traffic isn't encrypted, like everything else between the nodes of such a cluster.
"""

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time

from steps import ROOT
from steps.base.errors import UserError
from steps.config.engine import Placement
from steps.run.engines.link import Link
from steps.run.placing.door import Door
from steps.run.placing.launch import Order, Reply

JOIN_SHARE = 0.75
"""Share of the time for a start; a missing node must be reported before the engines are late."""

END_S = 10.0
"""How long the cluster's side may take to end; a local one stops every node."""


class Cluster:
    """The nodes of one run."""

    def __init__(self, placement: Placement, limit_s: float) -> None:
        self._placement = placement
        self._limit_s = limit_s * JOIN_SHARE
        self._process: subprocess.Popen[str] | None = None
        self._said = b""
        self.exposed: tuple[str, ...] = ()
        """Sentences for the result about what others on the network could reach."""

    def links(self) -> list[Link]:
        """A connection to every engine of every node, in order. Raises UserError."""
        key = secrets.token_bytes(32)
        limit = time.monotonic() + self._limit_s
        self._begin(key)
        door = self._door(self._reply().host or "", key)
        try:
            self._tell(f"{door.port}")
            reply = self._reply()
            self.exposed += reply.exposed
            return self._connected(door, reply.addresses, limit)
        finally:
            door.close()

    def close(self) -> None:
        """End what was started on the nodes; engines have ended with their connections."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            # A session of its own, so what it was starting ends with it.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _begin(self, key: bytes) -> None:
        order = Order(
            address=self._placement.cluster,
            nodes=self._placement.nodes,
            kinds=self._placement.kinds,
            hosts=self._placement.hosts,
            checkout=self._placement.checkout or str(ROOT),
            engines_per_node=self._placement.engines_per_node,
            key=key.hex(),
            limit_s=self._limit_s,
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "steps.run.placing.nodes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        self._tell(order.model_dump_json())

    def _tell(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it says instead, or its silence, is read
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _reply(self) -> Reply:
        reply = Reply.model_validate_json(self._line())
        if reply.error:
            raise UserError(reply.error)
        return reply

    def _line(self) -> bytes:
        """The next line of the process, which keeps the same limit itself and says what it waited
        for: so it gets END_S more. Raises UserError."""
        assert self._process is not None and self._process.stdout is not None
        pipe, until = self._process.stdout.fileno(), time.monotonic() + self._limit_s + END_S
        while b"\n" not in self._said:
            ready, _, _ = select.select([pipe], [], [], max(until - time.monotonic(), 0.0))
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
        engines = self._placement.nodes * self._placement.engines_per_node
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
        per_node = self._placement.engines_per_node
        found: dict[int, Link] = {}
        while len(found) < len(addresses) * per_node:
            arrived = door.next(limit)
            if arrived is None:
                missing = next(n for n in range(len(addresses) * per_node) if n not in found)
                raise UserError(
                    f"engine {missing} on node {missing // per_node} "
                    f"({addresses[missing // per_node]}) did not connect; is the checkout at the "
                    "same path on every node, and no firewall between them?"
                )
            number, connection = arrived
            node = number // per_node
            kind = self._placement.kind(node)
            where = f"{addresses[node]}, {kind.hardware}" if kind else addresses[node]
            name = f"engine {number} on node {node} ({where})"
            found[number] = Link(name, connection, None)
        return [found[number] for number in sorted(found)]
