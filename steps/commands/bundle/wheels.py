"""Files of locks: a wheel of every package, or its source where it has none, fetched once each."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from steps import ROOT
from steps.base import installer, venv
from steps.base.errors import UserError
from steps.base.locks import Entry, entries, normal
from steps.base.record import sha256_file

AT_ONCE = 20
"""Packages per call of pip: an interrupted call loses what it had fetched."""


def gather(locks: Iterable[Path], folder: Path) -> list[Path]:
    """Fetch a file of every package of the locks into `folder`; existing ones aren't fetched again.

    Each has one of the digests that its lock gives. Raises UserError with pip's message for a
    package that can't be fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[Path, None] = {}
    for lock in locks:
        wanted = [entry for entry in entries(lock) if entry.name]
        missing = [entry for entry in wanted if _file(folder, entry) is None]
        if missing:
            print(f"{lock.name}: {len(missing)} of {len(wanted)} packages to fetch", flush=True)
            for start in range(0, len(missing), AT_ONCE):
                _fetch(lock, missing[start : start + AT_ONCE], folder)
        for entry in wanted:
            file = _file(folder, entry)
            if file is None:
                raise UserError(
                    f"{lock}: pip fetched no file of {entry.name}=={entry.version} that the lock "
                    "lists; run make locks"
                )
            found[file] = None
    return list(found)


def _file(folder: Path, entry: Entry) -> Path | None:
    for path in sorted(folder.iterdir()):
        named = normal(path.name).startswith(f"{entry.name}-")
        if named and path.is_file() and sha256_file(path) in entry.digests:
            return path
    return None


def _fetch(lock: Path, missing: Sequence[Entry], folder: Path) -> None:
    """Move them into the folder when all are complete."""
    options = [entry.text for entry in entries(lock) if not entry.name]
    with tempfile.NamedTemporaryFile("w", suffix=".lock", encoding="utf-8") as wanted:
        wanted.write("".join([*options, *(entry.text for entry in missing)]))
        wanted.flush()
        tool = venv.logged_tool(ROOT)
        command = [
            *(str(tool / "bin/python"), "-I", "-m", "pip", "download", "--no-deps", "--no-input"),
            *("--require-hashes", "--no-build-isolation", "--quiet"),
            *("--dest", str(folder), "-r", wanted.name),
        ]
        given = installer.for_pip(installer.sources(tool / "bin/python", ROOT))
        wrong = installer.run(command, given, lambda line: None)
    if wrong:
        raise UserError(f"packages of {lock} can't be fetched: {wrong:.400}")
