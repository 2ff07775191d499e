"""LoadGen's end of an engine's process that reads nothing."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from steps.run.engines import wire
from steps.run.engines.link import Link, Still

LARGE = wire.Submit(list(range(1 << 18)), list(range(1 << 18)))
"""Four megabytes, more than a socket's buffer."""


@pytest.fixture
def ends() -> Iterator[tuple[Link, int]]:
    ours, theirs = socket.socketpair()
    link = Link("engine 0", Connection(ours.detach()), None)
    yield link, theirs.fileno()
    link.close()
    theirs.close()


def test_one_that_takes_nothing_is_given_up_after_the_limit(ends: tuple[Link, int]) -> None:
    link, _ = ends
    link.limit(0.5)
    begun = time.monotonic()
    with pytest.raises(Still, match="took nothing and gave no sign of life for 0 s"):
        link.send(LARGE)
    assert 0.4 < time.monotonic() - begun < 10


def test_one_that_stops_in_mid_message_is_given_up_after_the_limit(ends: tuple[Link, int]) -> None:
    link, theirs = ends
    link.limit(0.5)
    os.write(theirs, wire.HEAD.pack(wire.SUBMIT, 100, 0, 0, 0) + b"half")
    begun = time.monotonic()
    with pytest.raises(Still, match="stopped in mid-message"):
        link.receive()
    assert 0.4 < time.monotonic() - begun < 10


def test_one_that_is_slow_gets_all(ends: tuple[Link, int]) -> None:
    link, theirs = ends
    link.limit(1.0)
    size = wire.HEAD.size + 16 * len(LARGE.numbers)
    read = []

    def take() -> None:
        while sum(read) < size:
            time.sleep(0.02)  # longer in all than the limit
            read.append(len(os.read(theirs, 1 << 15)))

    reader = threading.Thread(target=take)
    reader.start()
    link.send(LARGE)
    reader.join(30)
    assert sum(read) == size
