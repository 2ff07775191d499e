"""Locks: packages, each pinned to a version and to the digests of its files.

Read by Pythons that have no packages yet: nothing here is imported but Python's own library.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError

_SEPARATORS = re.compile(r"[-_.]+")
LOADGEN, LOADGEN_PACKAGE = "loadgen", "mlcommons-loadgen"
"""`envs/loadgen-VERSION.lock` holds a round's LoadGen, for environments whose own lock has another
one; such an environment is called NAME-loadgen-VERSION."""

_DIGEST = re.compile(r"--hash=sha256:([0-9a-f]{64})(?=\s|$)")


@dataclass(frozen=True)
class Entry:
    """A package of a lock; `name` as the index writes it, `text` as it stands in the file.

    `digests` are the sha256 of the files that may be installed, hexadecimal. `text` alone is an
    option or a remark, whose other fields are empty.
    """

    text: str
    name: str = ""
    version: str = ""
    digests: tuple[str, ...] = ()


def normal(package: str) -> str:
    """PEP 503: one form for all ways to write a package's name."""
    return _SEPARATORS.sub("-", package).lower()


def entries(lock: Path) -> list[Entry]:
    """All entries of a lock, in order. Raises UserError for a line that pins no version."""
    return list(_entries(lock))


def _entries(lock: Path) -> Iterator[Entry]:
    text, begun = "", 1
    for number, line in enumerate(lock.read_text(encoding="utf-8").splitlines(keepends=True), 1):
        begun = begun if text else number
        text += line
        if not line.rstrip("\n").endswith("\\"):
            yield _entry(text, f"{lock}, line {begun}")
            text = ""
    if text:
        yield _entry(text, f"{lock}, line {begun}")


def _entry(text: str, where: str) -> Entry:
    said = text.partition("#")[0].partition(";")[0].partition("--hash")[0].strip(" \t\n\\")
    if not said or said.startswith("-"):
        return Entry(text)
    name, pinned, version = (part.strip() for part in said.partition("=="))
    if not pinned or not version:
        raise UserError(f"{where}: {said!r} pins no version; write NAME==VERSION")
    return Entry(text, normal(name), version, tuple(_DIGEST.findall(text)))


def packages(lock: Path) -> dict[str, str]:
    """Name to version. Raises UserError for a line that pins no version."""
    return {entry.name: entry.version for entry in entries(lock) if entry.name}


def agree(locks: Sequence[Path]) -> bool:
    """Whether no package stands in two of them with different versions."""
    known: dict[str, str] = {}
    return all(
        known.setdefault(name, version) == version
        for lock in locks
        for name, version in packages(lock).items()
    )


def of_environment(name: str) -> list[str]:
    """The names of an environment's locks: its own, and that of a round's LoadGen if it has one."""
    own, found, version = name.partition(f"-{LOADGEN}-")
    return [own, f"{LOADGEN}-{version}"] if found else [name]


def overlaid(locks: Sequence[Path]) -> list[Entry]:
    """Entries of several locks; a later lock's package takes the place of an earlier one's."""
    found: list[Entry] = []
    for lock in locks:
        own = entries(lock)
        named = {entry.name for entry in own if entry.name}
        found = [*(entry for entry in found if entry.name not in named), *own]
    return found


def overlaid_text(locks: Sequence[Path]) -> str:
    """The same as the text of one lock."""
    return "".join(f"{entry.text.rstrip()}\n" for entry in overlaid(locks))
