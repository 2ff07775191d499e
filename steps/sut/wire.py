"""What LoadGen's process and an engine's process say to each other, over a Connection.

Answers travel as columns of bytes: per sample a few bytes of bookkeeping, whatever its length.
"""

import pickle
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from steps.sut.engine import Events, Start

HEARTBEAT_S = 1.0
"""An engine's process says something at least so often."""


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
    """Samples for the engine, as numbers and sample indices of eight bytes each."""

    numbers: bytes
    indices: bytes


@dataclass(frozen=True)
class Ready:
    """The engine takes samples. `rate`: tokens per second of one sample of the warm-up."""

    identity: dict[str, str]
    start_s: float
    rate: float


@dataclass(frozen=True)
class Brought:
    """Events of one step; `tokens` holds the answers one after the other, `counts` long each."""

    first: tuple[bytes, bytes]
    numbers: bytes
    counts: bytes
    tokens: bytes


@dataclass(frozen=True)
class Alive:
    """A sign of life."""


@dataclass(frozen=True)
class Failed:
    """The engine's last words; `expected`: a sentence for the user, no defect."""

    text: str
    expected: bool


Message = Assignment | Hello | Submit | Ready | Brought | Alive | Failed


def send(connection: "Connection[Any, Any]", message: Message) -> None:
    """Raises OSError if nobody listens any more."""
    connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def receive(connection: "Connection[Any, Any]") -> Message:
    """Raises EOFError or OSError if the other side is gone."""
    message: Message = pickle.loads(connection.recv_bytes())
    return message


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


def submit_of(samples: Sequence[tuple[int, int]]) -> Submit:
    numbers, indices = zip(*samples, strict=True)
    return Submit(array("q", numbers).tobytes(), array("q", indices).tobytes())


def samples_of(message: Submit) -> list[tuple[int, int]]:
    return list(zip(array("q", message.numbers), array("q", message.indices), strict=True))


def brought_of(events: Events) -> Brought:
    tokens, counts = array("i"), array("q")
    for _, answer in events.completed:
        tokens.extend(answer)
        counts.append(len(answer))
    return Brought(
        first=(
            array("q", (number for number, _ in events.first)).tobytes(),
            array("i", (token for _, token in events.first)).tobytes(),
        ),
        numbers=array("q", (number for number, _ in events.completed)).tobytes(),
        counts=counts.tobytes(),
        tokens=tokens.tobytes(),
    )


def events_of(message: Brought) -> Events:
    events = Events()
    numbers, tokens = message.first
    events.first.extend(zip(array("q", numbers), array("i", tokens), strict=True))
    answers, at = array("i", message.tokens), 0
    columns = zip(array("q", message.numbers), array("q", message.counts), strict=True)
    for number, count in columns:
        events.completed.append((number, answers[at : at + count]))
        at += count
    return events
