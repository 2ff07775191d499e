"""The messages between LoadGen's process and an engine's process, over a Connection.

Answers travel as columns, and their tokens are copied from memory to memory: a sample of any length
costs a few bytes of bookkeeping.
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
"""An engine's process sends a message at least this often."""

HEAD = struct.Struct("<5Q")
"""The head of a message: its kind, and up to four sizes of what follows."""

PICKLED, SUBMIT, NEWS, HELLO = range(4)
"""Hello is only a head, because its sender isn't known yet. Submit and News, of which Server has
one for every sample, are columns of 64-bit integers, and raw tokens: a pickle took up to twice as
long. Other messages are sent once, or once a second.
"""

LARGEST = 1 << 33
"""The most bytes of a message; a dataset's prompts are the longest."""

Part: TypeAlias = "bytes | bytearray | memoryview | array[int]"


@dataclass(frozen=True)
class Assignment:
    """The first message to an engine's process.

    `place`: its number among its node's engines, from 0, which determines its CPUs and
    accelerators. `prompts`, `stops` (stop sequences, none where the dataset has none) and `warmup`
    are columns (see `packed`).
    """

    start: Start
    place: int
    prompts: tuple[bytes, bytes]
    stops: tuple[bytes, bytes]
    warmup: tuple[bytes, bytes]


@dataclass(frozen=True)
class Hello:
    """The first message of an engine's process that has connected: its number in the run."""

    number: int


@dataclass(frozen=True)
class Submit:
    """Samples for the engine: their numbers, and their indices in the dataset."""

    numbers: list[int]
    indices: list[int]


@dataclass(frozen=True)
class Ready:
    """The engine takes samples. `rate`: tokens per second of one sample of the warm-up.

    `threads` of arithmetic as its libraries report. `device`: model name of the device it computes
    on; `accelerators`: their numbers on its node, as "0,1", "" if it isn't bound to any; `bus`:
    the addresses of those that its process sees. `cpus` and `memory`: the CPUs and the NUMA node
    that it is bound to because of them.
    """

    identity: dict[str, str]
    device: str
    accelerators: str
    threads: int
    start_s: float
    rate: float
    bus: tuple[str, ...] = ()
    cpus: str = ""
    memory: int | None = None


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
    """The engine's last message; `expected`: a sentence for the user, not a defect."""

    text: str
    expected: bool


Message = Assignment | Hello | Submit | Ready | News | Alive | SlowSteps | Failed


class Garbled(OSError):
    """The other side sent something that isn't a message."""


def send(connection: "Connection[Any, Any]", message: Message) -> None:
    """Raises OSError if the other side is gone."""
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
    """Raises EOFError or OSError if the other side is gone, Garbled if it isn't a message."""
    head = bytearray(HEAD.size)
    _moved(os.readv, connection, [head])
    kind, size, tokens, answers, answers_tokens = HEAD.unpack(head)
    columns_bytes = 16 * (size + answers) + 4 * (tokens + answers_tokens)
    if kind >= HELLO or (size if kind == PICKLED else columns_bytes) > LARGEST:
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
    """Send all bytes of the parts; this nearly always takes one call."""
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
