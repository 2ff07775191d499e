"""What LoadGen's process and an engine's process say to each other, over a Connection.

Answers travel as columns, and their tokens from memory to memory: a sample costs a few bytes of
bookkeeping, whatever its length.
"""

import os
import pickle
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from steps.sut.engine import News, Start

HEARTBEAT_S = 1.0
"""An engine's process says something at least so often."""

FRAME = struct.Struct("<QQ")
"""Before a message: how many buffers follow it; bytes of their sizes and of its pickle together."""

Buffer = TypeVar("Buffer", bytearray, "array[int]")


@dataclass(frozen=True)
class Assignment:
    """The first message to an engine's process.

    `place`: which of its node's engines it is, from 0; its CPUs and accelerators follow from it.
    `prompts` and `warmup` are columns (see `packed`).
    """

    start: Start
    place: int
    prompts: tuple[bytes, bytes]
    warmup: tuple[bytes, bytes]


@dataclass(frozen=True)
class Hello:
    """The first message of an engine's process that has connected: which of the run's it is."""

    number: int


@dataclass(frozen=True)
class Submit:
    """Samples for the engine: their numbers, and their indices in the dataset."""

    numbers: list[int]
    indices: list[int]


@dataclass(frozen=True)
class Ready:
    """The engine takes samples. `rate`: tokens per second of one sample of the warm-up.

    `device`: model name of what it computes on.
    """

    identity: dict[str, str]
    device: str
    start_s: float
    rate: float


@dataclass(frozen=True)
class Alive:
    """A sign of life."""


@dataclass(frozen=True)
class Failed:
    """The engine's last words; `expected`: a sentence for the user, no defect."""

    text: str
    expected: bool


Message = Assignment | Hello | Submit | Ready | News | Alive | Failed


def send(connection: "Connection[Any, Any]", message: Message) -> None:
    """Raises OSError if nobody listens any more."""
    buffers: list[memoryview] = []
    head = pickle.dumps(
        message, pickle.HIGHEST_PROTOCOL, buffer_callback=lambda each: buffers.append(each.raw())
    )
    sizes = struct.pack(f"<{len(buffers)}Q", *(each.nbytes for each in buffers))
    frame = FRAME.pack(len(buffers), len(sizes) + len(head))
    parts = [memoryview(frame + sizes + head), *buffers]
    descriptor = connection.fileno()
    while parts:
        written = os.writev(descriptor, parts)
        while parts and written >= parts[0].nbytes:
            written -= parts.pop(0).nbytes
        if written:
            parts[0] = parts[0][written:]


def receive(connection: "Connection[Any, Any]") -> Message:
    """Raises EOFError or OSError if the other side is gone."""
    descriptor = connection.fileno()
    count, length = FRAME.unpack(_filled(descriptor, bytearray(FRAME.size)))
    head = memoryview(_filled(descriptor, bytearray(length)))
    sizes = head[: 8 * count].cast("Q")
    message: Message = pickle.loads(head[8 * count :], buffers=_tokens(descriptor, sizes))
    return message


def _tokens(descriptor: int, sizes: Iterable[int]) -> "Iterator[array[int]]":
    """Nothing else is passed on apart."""
    for size in sizes:
        column = array("i", (0,)) * (size // array("i").itemsize)
        yield _filled(descriptor, column)


def _filled(descriptor: int, target: Buffer) -> Buffer:
    view = memoryview(target).cast("B")
    while view:
        count = os.readv(descriptor, [view])
        if not count:
            raise EOFError
        view = view[count:]
    return target


def packed(rows: Sequence[Sequence[int]]) -> tuple[bytes, bytes]:
    """Token ids of all rows one after the other, and the length of each row."""
    tokens = array("i")
    for row in rows:
        tokens.extend(row)
    return tokens.tobytes(), array("q", map(len, rows)).tobytes()


def unpacked(columns: tuple[bytes, bytes]) -> "list[array[int]]":
    tokens, rows, at = array("i", columns[0]), [], 0
    for length in array("q", columns[1]):
        rows.append(tokens[at : at + length])
        at += length
    return rows
