"""LoadGen's side of engines on other nodes: steps.run.placing.nodes starts them, they connect.

Connections are authenticated by a key made for the run (HMAC, by multiprocessing.connection); what
passes is not encrypted, as everything else between the nodes of such a cluster isn't.
"""

import contextlib
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from typing import Any

from steps import ROOT
from steps.base.errors import UserError
from steps.config.engine import Placement
from steps.run.engines import wire
from steps.run.engines.link import Link
from steps.run.placing.launch import LOCAL, Order, Reply

JOIN_SHARE = 0.75
"""Of the time that a start has: who is missing has to be said before the engines are late."""

END_S = 10.0
"""How long the cluster's side has to end; a local one stops every node."""


class Cluster:
    """The nodes of one run."""

    def __init__(self, placement: Placement, limit_s: float) -> None:
        self._placement = placement
        self._limit_s = limit_s * JOIN_SHARE
        self._arrived: queue.Queue[tuple[int, Connection[Any, Any]]] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self._closed = threading.Event()

    def links(self) -> list[Link]:
        """A connection to every engine of every node, in order. Raises UserError."""
        key = secrets.token_bytes(32)
        host = "127.0.0.1" if self._placement.cluster == LOCAL else "0.0.0.0"
        limit = time.monotonic() + self._limit_s
        with Listener((host, 0), backlog=64, authkey=key) as listener:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            try:
                addresses = self._placed(listener.address[1], key)
                return self._connected(addresses, limit)
            finally:
                self._closed.set()

    def close(self) -> None:
        """End what was started on the nodes; engines end with their connection already."""
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

    def _placed(self, port: int, key: bytes) -> tuple[str, ...]:
        order = Order(
            address=self._placement.cluster,
            nodes=self._placement.nodes,
            kinds=self._placement.kinds,
            hosts=self._placement.hosts,
            checkout=self._placement.checkout or str(ROOT),
            engines_per_node=self._placement.engines_per_node,
            port=port,
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
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(order.model_dump_json() + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise UserError("the process that starts the nodes ended; see the log for its words")
        reply = Reply.model_validate_json(line)
        if reply.error:
            raise UserError(reply.error)
        return reply.addresses

    def _accept(self, listener: Listener) -> None:
        """Until the listener is closed. Whoever doesn't know the key is turned away, and whoever
        breaks off, or sends something else, takes no later engine's place."""
        while not self._closed.is_set():
            try:
                connection = listener.accept()
                hello = wire.receive(connection)
            except (AuthenticationError, EOFError, OSError):
                continue
            if isinstance(hello, wire.Hello):
                self._arrived.put((hello.number, connection))

    def _connected(self, addresses: tuple[str, ...], limit: float) -> list[Link]:
        per_node = self._placement.engines_per_node
        found: dict[int, Link] = {}
        while len(found) < len(addresses) * per_node:
            try:
                number, connection = self._arrived.get(timeout=max(limit - time.monotonic(), 0))
            except queue.Empty as error:
                missing = next(n for n in range(len(addresses) * per_node) if n not in found)
                raise UserError(
                    f"engine {missing} on node {missing // per_node} "
                    f"({addresses[missing // per_node]}) did not connect; is the checkout at the "
                    "same path on every node, and no firewall between them?"
                ) from error
            node = number // per_node
            kind = self._placement.kind(node)
            where = f"{addresses[node]}, {kind.hardware}" if kind else addresses[node]
            name = f"engine {number} on node {node} ({where})"
            found[number] = Link(name, connection, None)
        return [found[number] for number in sorted(found)]
