"""Accepts engines on other nodes: a connection must know the run's key and state its number. Any
other connection, from a port scanner, a health check or another version, is refused on a thread of
its own and within a limit, so that none keeps an engine waiting.
"""

import contextlib
import queue
import socket
import threading
import time
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

from steps.run.engines import wire

PEER_LIMIT_S = 10.0
"""How long a connection may take to authenticate and state its number; an engine takes
milliseconds.
"""

PEERS = 256
"""How many connections may authenticate at once."""

PAUSE_S = 0.1
"""Pause after a connection that couldn't be accepted, perhaps because descriptors ran out."""


class Door:
    """A listener on one address. Raises OSError if this machine doesn't have it."""

    def __init__(self, host: str, key: bytes, engines: int) -> None:
        self._key = key
        self._free = set(range(engines))
        self._arrived: queue.Queue[tuple[int, Connection[Any, Any]]] = queue.Queue()
        self._places = threading.BoundedSemaphore(PEERS)
        self._lock = threading.Lock()
        self._closed = False
        self._socket = socket.create_server((host, 0), backlog=64)
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, name="door", daemon=True).start()

    def next(self, limit: float) -> "tuple[int, Connection[Any, Any]] | None":
        """An engine's number and connection; None if none came by then (time.monotonic)."""
        try:
            return self._arrived.get(timeout=max(limit - time.monotonic(), 0))
        except queue.Empty:
            return None

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self._socket.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                time.sleep(PAUSE_S)
                continue
            self._places.acquire()
            threading.Thread(target=self._admit, args=(peer,), daemon=True).start()

    def _admit(self, peer: socket.socket) -> None:
        timer = threading.Timer(PEER_LIMIT_S, _cut, (peer,))
        timer.daemon = True
        connection: Connection[Any, Any] = Connection(peer.dup().detach())
        timer.start()
        try:
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            number = wire.receive_hello(connection)
            with self._lock:
                self._free.remove(number)
            timer.cancel()
            self._arrived.put((number, connection))
        except Exception:  # whatever it sends, in whatever state it leaves: it is no engine of ours
            connection.close()
        finally:
            timer.cancel()
            peer.close()
            self._places.release()


def _cut(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
