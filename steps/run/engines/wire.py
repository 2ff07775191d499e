"""What LoadGen's process and an engine's process say to each other, over a Connection.

Answers travel as columns, and their tokens from memory to memory: a sample costs a few bytes of
bookkeeping, whatever its length.
"""

import os
import pickle
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from steps.run.engines.engine import Batch, News, Start
from steps.run.engines.pace import Slow

HEARTBEAT_S = 1.0
"""An engine's process says something at least so often."""

HEAD = struct.Struct("<5Q")
"""Before a message: what it is, and up to four sizes of what follows."""

PICKLED, SUBMIT, NEWS, HELLO = range(4)
"""Hello is its head alone, for it isn't known yet who says it. Submit and News, of which Server has
one for every sample, are columns of 64-bit integers, and tokens as they are: a pickle took up to
twice as long. The rest is said once, or once a second."""

LARGEST = 1 << 33
"""No message has more bytes: the prompts of a dataset are the longest."""

Part: TypeAlias = "bytes | bytearray | memoryview | array[int]"


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

    `threads` of arithmetic, by what its libraries say. `device`: model name of what it computes
    on; `accelerators`: their numbers on its node, as "0,1", "" where it isn't told which.
    """

    identity: dict[str, str]
    device: str
    accelerators: str
    threads: int
    start_s: float
    rate: float


@dataclass(frozen=True)
class Alive:
    """A sign of life."""


@dataclass(frozen=True)
class SlowSteps:
    """Steps that took many times their median, and how long ago each ended, in s: another node's
    clock says nothing here."""

    steps: list[Slow]
    ago_s: list[float]


@dataclass(frozen=True)
class Failed:
    """The engine's last words; `expected`: a sentence for the user, no defect."""

    text: str
    expected: bool


Message = Assignment | Hello | Submit | Ready | News | Alive | SlowSteps | Failed


class Garbled(OSError):
    """The other side sent what is no message."""


def send(connection: "Connection[Any, Any]", message: Message) -> None:
    """Raises OSError if nobody listens any more."""
    parts: list[Part]
    if isinstance(message, Hello):
        parts = [HEAD.pack(HELLO, message.number, 0, 0, 0)]
    elif isinstance(message, Submit):
        columns = array("q", message.numbers)
        columns.extend(message.indices)
        parts = [HEAD.pack(SUBMIT, len(message.numbers), 0, 0, 0), columns]
    elif isinstance(message, News):
        first, completed = message.first, message.completed
        sizes = len(first), len(first.tokens), len(completed), len(completed.tokens)
        columns = array("q", [*first.numbers, *first.counts, *completed.numbers, *completed.counts])
        parts = [HEAD.pack(NEWS, *sizes), columns, first.tokens, completed.tokens]
    else:
        text = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        parts = [HEAD.pack(PICKLED, len(text), 0, 0, 0), text]
    _moved(os.writev, connection, parts)


def receive(connection: "Connection[Any, Any]") -> Message:
    """Raises EOFError or OSError if the other side is gone, Garbled for what is no message."""
    head = bytearray(HEAD.size)
    _moved(os.readv, connection, [head])
    kind, size, tokens, answers, answers_tokens = HEAD.unpack(head)
    if kind >= HELLO or 16 * (size + answers) + 4 * (tokens + answers_tokens) > LARGEST:
        raise Garbled(f"its head is {head.hex()}")
    if kind == SUBMIT:
        columns = _zeros("q", 2 * size)
        _moved(os.readv, connection, [columns])
        values = columns.tolist()
        return Submit(values[:size], values[size:])
    if kind == NEWS:
        columns = _zeros("q", 2 * (size + answers))
        first, completed = _zeros("i", tokens), _zeros("i", answers_tokens)
        _moved(os.readv, connection, [columns, first, completed])
        values, end = columns.tolist(), 2 * size + answers
        return News(
            Batch(values[:size], values[size : 2 * size], first),
            Batch(values[2 * size : end], values[end:], completed),
        )
    text = bytearray(size)
    _moved(os.readv, connection, [text])
    try:
        message = pickle.loads(text)
    except Exception as error:  # of a pickle's bytes anything may come
        raise Garbled(f"{type(error).__name__}: {error}") from error
    if not isinstance(message, Message):
        raise Garbled(f"it is a {type(message).__name__}")
    return message


def receive_hello(connection: "Connection[Any, Any]") -> int:
    """The number of an engine's process that has connected. Raises as `receive` does."""
    head = bytearray(HEAD.size)
    _moved(os.readv, connection, [head])
    kind, number, *rest = HEAD.unpack(head)
    if kind != HELLO or any(rest):
        raise Garbled(f"its head is {head.hex()}")
    return int(number)


def _zeros(code: str, count: int) -> "array[int]":
    return array(code, (0,)) * count


def _moved(
    move: Callable[[int, Sequence[Part]], int],
    connection: "Connection[Any, Any]",
    parts: list[Part],
) -> None:
    """All bytes of the parts, which nearly always takes one call."""
    descriptor = connection.fileno()
    views = [memoryview(part) for part in parts]
    left = sum([view.nbytes for view in views])
    while True:
        count = move(descriptor, views)
        left -= count
        if not left:
            return
        if not count:
            raise EOFError
        views = [view.cast("B") for view in views if view.nbytes]
        while count >= views[0].nbytes:
            count -= views.pop(0).nbytes
        views[0] = views[0][count:]


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
