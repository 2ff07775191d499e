"""The results of checks: findings, and the table of their codes (`codes.yaml`)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

from steps.base.yaml_text import mapping_of

CODES = Path(__file__).with_name("codes.yaml")
SHOWN = 20
"""Findings of one code in one file; a damaged file would bury the rest of the report."""


class Severity(str, Enum):
    """An error makes a submission invalid; a warning needs a look; advice may wait."""

    ERROR = "error"
    WARNING = "warning"
    ADVICE = "advice"


@dataclass(frozen=True)
class Code:
    """The common part of all findings of a code.

    `official`: the check of the official checker (v5.1.1) that it corresponds to, or what that
    checker misses. `strict`: the official checker doesn't check it.
    """

    name: str
    severity: Severity
    why: str
    fix: str
    official: str
    strict: bool = False


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `path` is relative to the tree, `line` counts from 1, 0: no line."""

    code: str
    severity: Severity
    path: str
    line: int
    what: str


@cache
def codes() -> Mapping[str, Code]:
    """All codes, in the order of the table."""
    table = mapping_of(CODES)
    return {
        name: Code(name, Severity(fields.pop("severity")), **fields)
        for name, fields in table.items()
    }


@dataclass
class Findings:
    """Collects findings below one path; `add` refuses a code that the table doesn't have."""

    items: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(
        self, code: str, path: str, what: str, *, line: int = 0, severity: Severity | None = None
    ) -> None:
        """`severity` replaces the code's where a division is less strict."""
        chosen = severity or codes()[code].severity
        self.counts[code, path] += 1
        if self.counts[code, path] > SHOWN:
            return
        if self.counts[code, path] == SHOWN:
            line, what = 0, "more of these; the rest is not shown"
        self.items.append(Finding(code, chosen, printable(path), line, printable(what)))

    def errors(self) -> int:
        return sum(finding.severity is Severity.ERROR for finding in self.items)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)


def printable(text: str) -> str:
    """Text of a stranger's files on one line: control characters and broken UTF-8 are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text.encode("utf-8", "backslashreplace").decode("utf-8")
    )
