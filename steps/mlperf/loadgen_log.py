"""LoadGen's logs, read as streams: mlperf_log_detail.txt and mlperf_log_accuracy.json.

`record_of` and `entries_of` parse single lines, for checks of a stranger's log; `read_answers` is
for logs of our own runs, where any damage raises UserError. Detail logs: steps/mlperf/detail.py.
"""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from steps.base.errors import UserError
from steps.base.untrusted import Damaged, decoded, lines_of

MARKER = b":::MLLOG"
"""A record's line begins with it (tools/submission/log_parser.py, v5.1.1)."""

TOKEN_BYTES = 4
"""Our answers are logged as little-endian int32 token ids."""

WIDE_BYTES = 8
"""Those of the reference's Offline SUTs for llama2-70b and mixtral-8x7b are int64, torch's own."""

LARGEST_TOKEN = 2**31 - 1


class Record(NamedTuple):
    """One record of a detail log; `time_ms` is the value as written."""

    key: str
    value: Any
    is_error: bool
    is_warning: bool
    time_ms: Any


@dataclass(frozen=True)
class Answer:
    """One logged response. `first_token` is what FirstTokenComplete got, None if nothing."""

    sample_index: int
    tokens: list[int]
    first_token: list[int] | None
    token_count: int | None


def record_of(line: bytes) -> Record | None:
    """None for a line that isn't a record; raises Damaged for one that should be."""
    text = decoded(line)
    if not line.startswith(MARKER):
        if line.find(b"\r" + MARKER) >= 0:
            raise Damaged("a carriage return splits the line")
        return None
    if "\r" in text:
        raise Damaged("a carriage return splits the record")
    try:
        record = _object(text, len(MARKER))
        metadata = record["metadata"]
        found = Record(
            record["key"],
            record["value"],
            bool(metadata["is_error"]),
            bool(metadata["is_warning"]),
            record["time_ms"],
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"no record of LoadGen's ({type(error).__name__}: {error})"[:160]) from error
    if not isinstance(found.key, str):
        raise Damaged("the record's key is no text")
    return found


_DECODER = json.JSONDecoder()
_BLANKS = " \t\n\r"
_SPACES = tuple(_BLANKS)


def _object(text: str, start: int) -> Any:
    """The value that json.loads would read from there on; twice as fast on a short line."""
    while text.startswith(_SPACES, start):
        start += 1
    value, end = _DECODER.raw_decode(text, start)
    if end != len(text) and text[end:].strip(_BLANKS):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def entries_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The numbered entries of an accuracy log; raises Damaged for one that is cut off."""
    closed = False
    for number, line in lines_of(path):
        text = line.strip().rstrip(b",")
        closed = closed or text == b"]"
        if text not in (b"", b"[", b"]"):
            yield number, text
    if not closed:
        raise Damaged("it ends without its closing bracket")


def token_bytes(path: Path) -> int:
    """How wide a token of an accuracy log is, in bytes; raises Damaged for one that is cut off.

    An entry's token_count gives it. Without one, a log whose every other int32 is 0 is int64: as
    int32 each answer would alternate between a token and token 0.
    """
    wide = False
    for number, text in entries_of(path):
        try:
            entry = json.loads(text)
            data, count = bytes.fromhex(entry["data"]), int(entry.get("token_count") or 0)
        except _NO_ENTRY as error:
            raise Damaged(f"damaged entry ({error})"[:160], number) from error
        if data and count and len(data) in (TOKEN_BYTES * count, WIDE_BYTES * count):
            return len(data) // count
        if len(data) % WIDE_BYTES or any(array("i", data)[1::2]):
            return TOKEN_BYTES
        wide = wide or bool(data)
    return WIDE_BYTES if wide else TOKEN_BYTES


def read_answers(path: Path) -> Iterator[Answer]:
    """Entries of an accuracy log, one at a time; raises UserError at the first damaged one."""
    try:
        width = token_bytes(path)
        for number, text in entries_of(path):
            try:
                yield _answer(json.loads(text), width)
            except _NO_ENTRY as error:
                raise UserError(f"{path}:{number}: damaged entry ({error}); re-run") from error
    except Damaged as damage:
        raise _unusable(path, damage, damage.line) from damage


_NO_ENTRY = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def _unusable(path: Path, damage: Damaged, line: int) -> UserError:
    return UserError(f"{path}{f':{line}' if line else ''}: {damage}; re-run")


def _answer(entry: dict[str, Any], width: int) -> Answer:
    first = entry.get("token_data")
    count = entry.get("token_count")
    tokens = _tokens(entry["data"], width)
    other = TOKEN_BYTES + WIDE_BYTES - width
    if count and len(tokens) != count and len(tokens) * width == count * other:
        raise ValueError(f"token_count says {count}, as int{8 * width} there are {len(tokens)}")
    return Answer(
        sample_index=sample_of(entry),
        tokens=tokens,
        first_token=None if first is None else _tokens(first, width),
        token_count=None if count is None else int(count),
    )


def sample_of(entry: dict[str, Any]) -> int:
    """The sample that an entry of an accuracy log answers; raises KeyError or TypeError without."""
    index = entry["qsl_idx"]
    if type(index) is not int:
        raise TypeError(f"qsl_idx is {index!r}, a whole number is wanted")
    return index


def _tokens(text: str, width: int) -> list[int]:
    data = bytes.fromhex(text)
    if len(data) % width:
        raise ValueError(f"{len(data)} bytes are no whole number of int{8 * width} tokens")
    tokens = array("i" if width == TOKEN_BYTES else "q", data).tolist()
    if tokens and not 0 <= min(tokens) <= max(tokens) <= LARGEST_TOKEN:
        raise ValueError(f"{max(tokens, key=abs)} is no token")
    return tokens
