"""Errors that a user is meant to read."""

import json
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a tenth of a second that commands without a plan don't have to pay
    from pydantic import ValidationError

SHOWN_COMPLAINTS = 3


class UserError(Exception):
    """One sentence: what is wrong, where, and what to do about it.

    Every command prints it as it stands and exits with status 1. Anything else that escapes a
    step is a defect of Reprise: its traceback goes to the step's log, never to the terminal.
    """


def shown(text: str) -> str:
    """A stranger's text within a line: its line ends are escaped too, as JSON writes them.

    `console.plain_output` removes everything else that a terminal would obey.
    """
    return plain(text).replace("\n", "\\n").replace("\t", "\\t")


def plain(text: str) -> str:
    """The text without anything that a terminal obeys or hides; line ends and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in OBEYED else c for c in text)


OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control and format characters (colours, cursor, text direction), surrogates, line ends."""


def _escaped(character: str) -> str:
    return character if character in "\n\t" else json.dumps(character)[1:-1]


def explain(error: "ValidationError") -> str:
    """The first complaints of pydantic, as one line: dotted key, complaint, offending value."""
    parts = []
    for complaint in error.errors()[:SHOWN_COMPLAINTS]:
        where = ".".join(str(part) for part in complaint["loc"])
        message = complaint["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if complaint["type"] == "extra_forbidden":
            message = "no such key"
        if complaint["type"] not in ("missing", "value_error"):
            message = f"{message}, got {complaint['input']!r:.60}"
        parts.append(f"{where}: {message}" if where else message)
    more = error.error_count() - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")
