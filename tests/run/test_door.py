"""Who comes before an engine, and what they send: no engine waits for them."""

import contextlib
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.config.runs import PerformanceRunConfig
from steps.run.engines import wire
from steps.run.placing import cluster as placing
from steps.run.placing import door as module
from steps.run.placing.cluster import Beside, Cluster
from steps.run.placing.door import Door
from tests.conftest import planned

KEY = b"k" * 32
HOST = "127.0.0.1"
AT_ONCE_S = 3.0

Held = list[Any]


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door(HOST, KEY, 3)
    yield made
    made.close()


class Silent(Cluster):
    """Whose process is any command."""

    def __init__(self, *command: str, limit_s: float = 60.0) -> None:
        placement = planned("scenario=Offline")
        raw = next(job.config for job in placement.jobs if job.step == "performance_run")
        super().__init__(PerformanceRunConfig.model_validate_json(raw).engine.placement, limit_s)
        self._placer = Beside(command)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("sh", "-c", "printf '{'; exec sleep 60"), "said nothing"),
        (("true",), "ended; see the log"),
        (("printf", '{"error": "no node"}\\n'), "no node"),
    ],
)
def test_the_process_that_starts_nodes_is_waited_for_with_a_limit(
    command: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "END_S", 0.3)
    cluster, begun = Silent(*command, limit_s=0.2), time.monotonic()
    with pytest.raises(UserError, match=words):
        cluster._reply()
    cluster.close()
    assert time.monotonic() - begun < 10


def test_a_door_on_every_interface_is_told() -> None:
    cluster = Silent("true")
    cluster._door("", KEY).close()
    cluster.close()
    (words,) = cluster.exposed
    assert "on every interface" in words


def engine(port: int, number: int = 0) -> "Connection[Any, Any]":
    connection: Connection[Any, Any] = Client((HOST, port), authkey=KEY)
    wire.send(connection, wire.Hello(number))
    return connection


def raw(port: int, data: bytes = b"") -> Held:
    peer = socket.create_connection((HOST, port))
    peer.sendall(data)
    return [peer]


def wrong_key(port: int) -> Held:
    with contextlib.suppress(AuthenticationError, OSError, EOFError):
        Client((HOST, port), authkey=b"wrong")
    return []


def reset(port: int) -> Held:
    (peer,) = raw(port)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    return []


def after_the_key(data: bytes) -> Callable[[int], Held]:
    def come(port: int) -> Held:
        connection: Connection[Any, Any] = Client((HOST, port), authkey=KEY)
        os.write(connection.fileno(), data)
        return [connection]

    return come


PICKLE = pickle.dumps(wire.Alive())

COMERS: dict[str, Callable[[int], Held]] = {
    "silent": raw,
    "half a header": lambda port: raw(port, b"\0\0"),
    "HTTP": lambda port: raw(port, b"GET / HTTP/1.0\r\n\r\n"),
    "a long length": lambda port: raw(port, b"\x7f\xff\xff\xff"),
    "a longer length": lambda port: raw(port, b"\xff" * 12),
    "wrong key": wrong_key,
    "reset": reset,
    "silent with the key": after_the_key(b""),
    "half a message": after_the_key(wire.HEAD.pack(wire.HELLO, 0, 0, 0, 0)[:-1]),
    "no pickle": after_the_key(wire.HEAD.pack(wire.PICKLED, 5, 0, 0, 0) + b"abcde"),
    "another message": after_the_key(wire.HEAD.pack(wire.PICKLED, len(PICKLE), 0, 0, 0) + PICKLE),
    "a number too high": after_the_key(wire.HEAD.pack(wire.HELLO, 3, 0, 0, 0)),
    "a huge message": after_the_key(wire.HEAD.pack(wire.SUBMIT, 1 << 60, 0, 0, 0)),
}


@pytest.mark.parametrize("comer", COMERS)
def test_whoever_comes_first_an_engine_is_taken_at_once(door: Door, comer: str) -> None:
    held = COMERS[comer](door.port)
    begun = time.monotonic()
    ours = engine(door.port)
    found = door.next(begun + AT_ONCE_S)
    assert found is not None and found[0] == 0, comer
    found[1].close()
    ours.close()
    for one in held:
        one.close()


def test_many_silent_ones_keep_no_engine_out(door: Door) -> None:
    held = [raw(door.port)[0] for _ in range(100)]
    ours = engine(door.port, 2)
    found = door.next(time.monotonic() + AT_ONCE_S)
    assert found is not None and found[0] == 2
    ours.close()
    for one in held:
        one.close()


def test_nobody_keeps_a_place_for_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PEER_LIMIT_S", 0.3)
    monkeypatch.setattr(module, "PEERS", 2)
    made = Door(HOST, KEY, 1)
    held = [raw(made.port)[0], after_the_key(b"")(made.port)[0], raw(made.port)[0]]
    stop = threading.Event()

    def drip() -> None:
        """A byte at a time says no more than silence."""
        with contextlib.suppress(OSError):
            while not stop.wait(0.05):
                held[0].sendall(b"\0")

    threading.Thread(target=drip, daemon=True).start()
    ours = engine(made.port)
    assert made.next(time.monotonic() + AT_ONCE_S) is not None
    stop.set()
    made.close()
    ours.close()


def test_a_number_is_taken_once(door: Door) -> None:
    first, second, third = (engine(door.port, number) for number in (1, 1, 2))
    limit = time.monotonic() + AT_ONCE_S
    found = [door.next(limit), door.next(limit)]
    assert sorted(one[0] for one in found if one) == [1, 2]
    assert door.next(time.monotonic() + 0.2) is None
    for one in (first, second, third):
        one.close()


def test_it_listens_on_its_address_alone(door: Door) -> None:
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", door.port), timeout=1):
        pass


def test_another_machine_s_address_is_refused() -> None:
    with pytest.raises(OSError):
        Door("192.0.2.77", KEY, 1)


def test_after_its_end_nobody_is_let_in(door: Door) -> None:
    door.close()
    with pytest.raises(OSError):
        socket.create_connection((HOST, door.port), timeout=1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=80), st.booleans())
def test_whatever_a_stranger_sends_the_next_one_is_served(data: bytes, with_key: bool) -> None:
    made = Door(HOST, KEY, 1)
    try:
        held = after_the_key(data)(made.port) if with_key else raw(made.port, data)
        ours = engine(made.port)
        found = made.next(time.monotonic() + AT_ONCE_S)
        assert found is not None
        assert found[0] == 0
        ours.close()
        for one in held:
            one.close()
    finally:
        made.close()
