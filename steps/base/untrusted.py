"""Files of a stranger's tree, read so that nothing in them can stop or fool the validator.

Only regular files are opened (a pipe would wait for ever, a link may lead out of the tree), lines
and files are bounded, and every fault comes back as `Damaged` with its line.
"""

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from steps.base.record import digest_of

MAX_LINE_BYTES = 16 << 20
"""The longest line LoadGen writes holds the indices of a dataset: 6 MB for rgat's 788,379."""

MAX_TEXT_BYTES = 4 << 20
MAX_COMPLAINT = 120
MAX_SHOWN_CHARACTERS = 80


class Damaged(Exception):
    """A file that isn't what it should be; `line` counts from 1, 0 is the whole file."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.line = line


def open_regular(path: Path) -> BufferedReader:
    """Raises Damaged unless `path` is a regular file that can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Damaged("it is missing") from error
    except (OSError, ValueError) as error:
        raise Damaged(f"it can't be read ({reason_of(error)})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Damaged("it isn't a regular file")
    return os.fdopen(descriptor, "rb")


def reason_of(error: Exception) -> str:
    """An exception's message without the path, which the caller states."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)[:MAX_COMPLAINT]


def text_of(path: Path) -> str:
    """A small text; raises Damaged for one over 4 MiB or not in UTF-8."""
    with open_regular(path) as stream:
        try:
            data = stream.read(MAX_TEXT_BYTES + 1)
        except OSError as error:
            raise Damaged(f"it can't be read ({reason_of(error)})") from error
    if len(data) > MAX_TEXT_BYTES:
        raise Damaged(f"it has more than {MAX_TEXT_BYTES >> 20} MiB")
    return decoded(data)


def lines_in(text: str) -> list[str]:
    """Lines as a file has them: str.splitlines would also split at form feeds and the like."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def decoded(data: bytes) -> str:
    """Raises Damaged at the first byte that isn't UTF-8, with its line."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Damaged(f"byte {data[error.start]:#04x} is not UTF-8", line) from error


def json_of(text: "str | bytes", **options: Any) -> Any:
    """What json.loads reads; raises ValueError for what is nested too deeply too."""
    try:
        return json.loads(text, **options)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def object_of(path: Path) -> tuple[dict[str, Any], list[str]]:
    """A JSON object and the keys that it has more than once; raises Damaged for anything else."""
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice.extend(sorted(key for key, count in counts.items() if count > 1))
        return found

    try:
        value = json_of(text_of(path), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise Damaged(f"it isn't JSON: {error.msg}", error.lineno) from error
    except ValueError as error:
        raise Damaged(f"it isn't JSON: {reason_of(error)}") from error
    if not isinstance(value, dict):
        raise Damaged("it holds no JSON object")
    return value, twice


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends; raises Damaged for one over 16 MiB."""
    with open_regular(path) as stream:
        number = 0
        while True:
            try:
                line = stream.readline(MAX_LINE_BYTES + 1)
            except OSError as error:
                raise Damaged(f"it can't be read ({reason_of(error)})", number) from error
            if not line:
                return
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise Damaged(f"the line has more than {MAX_LINE_BYTES >> 20} MiB", number)
            yield number, line.rstrip(b"\r\n")


def sha256_of(path: Path) -> str:
    """Raises Damaged for a file that can't be read."""
    with open_regular(path) as stream:
        try:
            return digest_of(stream, hashlib.sha256())
        except OSError as error:
            raise Damaged(f"it can't be read ({reason_of(error)})") from error


def shown(value: Any) -> str:
    """A value of a stranger's file, short; it may be nested deeper than Python can show."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return "a value too large to show"
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
