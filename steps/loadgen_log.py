"""LoadGen's logs, read as streams: mlperf_log_detail.txt and mlperf_log_accuracy.json."""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps.errors import UserError

MARKER = ":::MLLOG "
"""What a record's line begins with; other lines are not records (facts of log_parser.py v5.1.1)."""

TOKEN_BYTES = 4
"""Answers are logged as little-endian int32 token ids."""


@dataclass(frozen=True)
class Entry:
    """One record: `line` counts from 1."""

    line: int
    key: str
    value: Any


@dataclass
class Detail:
    """What a detail log says. The first occurrence of a key wins, as for the official checker."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    errors: list[Entry] = field(default_factory=list)
    warnings: list[Entry] = field(default_factory=list)

    def get(self, key: str) -> Any:
        """The value; raises UserError if the log has no such key."""
        if key not in self.values:
            raise UserError(f"{self.path} has no {key}; it is truncated or not a log of such a run")
        return self.values[key]


@dataclass(frozen=True)
class Answer:
    """One logged response. `first_token` is what FirstTokenComplete was given, None if nothing."""

    sample_index: int
    tokens: list[int]
    first_token: list[int] | None
    token_count: int | None


def read_detail(path: Path) -> Detail:
    """Raises UserError for an unreadable file or a damaged record, with its line."""
    detail = Detail(path)
    for number, line in _lines(path):
        if not line.startswith(MARKER):
            continue
        try:
            record = json.loads(line[len(MARKER) :])
            entry = Entry(number, str(record["key"]), record["value"])
            metadata = record["metadata"]
            is_error, is_warning = bool(metadata["is_error"]), bool(metadata["is_warning"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}:{number}: damaged record ({error}); re-run") from error
        detail.values.setdefault(entry.key, entry.value)
        if is_error:
            detail.errors.append(entry)
        elif is_warning:
            detail.warnings.append(entry)
    if not detail.values:
        raise UserError(f"{path} holds no record of LoadGen's; re-run")
    return detail


def read_answers(path: Path) -> Iterator[Answer]:
    """Entries of an accuracy log, one at a time; raises UserError at the first damaged one."""
    closed = False
    for number, line in _lines(path):
        text = line.strip().rstrip(",")
        if text in ("", "["):
            continue
        if text == "]":
            closed = True
            continue
        try:
            yield _answer(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise UserError(f"{path}:{number}: damaged entry ({error}); re-run") from error
    if not closed:
        raise UserError(f"{path} ends without its closing bracket: it is truncated; re-run")


def _answer(entry: dict[str, Any]) -> Answer:
    first = entry.get("token_data")
    count = entry.get("token_count")
    return Answer(
        sample_index=int(entry["qsl_idx"]),
        tokens=_tokens(entry["data"]),
        first_token=None if first is None else _tokens(first),
        token_count=None if count is None else int(count),
    )


def _tokens(text: str) -> list[int]:
    data = bytes.fromhex(text)
    if len(data) % TOKEN_BYTES:
        raise ValueError(f"{len(data)} bytes are no whole number of int32 tokens")
    return array("i", data).tolist()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as stream:
            yield from enumerate(stream, start=1)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; re-run") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({error}); re-run") from error
