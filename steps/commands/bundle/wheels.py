"""Wheels of locks: fetched, or built where a package has none, once each."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from steps.base.errors import UserError
from steps.submit.provenance.sbom import packages

FETCH_LIMIT_S = 3600.0
AT_ONCE = 20
"""Packages that one pip is asked for: what an ended one had fetched is lost."""


def gather(locks: Iterable[Path], folder: Path) -> list[Path]:
    """Every wheel of the locks, in `folder`; those that are there already are not fetched again.

    Raises UserError with pip's own words for a package that can't be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[Path, None] = {}
    for lock in locks:
        wanted = list(packages(lock))
        missing = [pin for pin in wanted if _wheel(folder, *pin) is None]
        if missing:
            print(f"{lock.name}: {len(missing)} of {len(wanted)} wheels to fetch", flush=True)
            for start in range(0, len(missing), AT_ONCE):
                _fetch(lock, missing[start : start + AT_ONCE], folder)
        for name, version in wanted:
            wheel = _wheel(folder, name, version)
            if wheel is None:
                raise UserError(f"{lock}: pip left no wheel of {name}=={version}; run it again")
            found[wheel] = None
    return list(found)


def _wheel(folder: Path, name: str, version: str) -> Path | None:
    """The wheel of a pinned version; a local version label (+cpu) in its name is as good."""
    from packaging.utils import canonicalize_name, parse_wheel_filename
    from packaging.version import Version

    wanted = Version(version)
    for path in folder.glob("*.whl"):
        stem = path.name.partition("-")[0]
        if canonicalize_name(stem) != name:
            continue
        found = parse_wheel_filename(path.name)[1]
        if found == wanted or (wanted.local is None and found.public == wanted.public):
            return path
    return None


def _fetch(lock: Path, missing: list[tuple[str, str]], folder: Path) -> None:
    """Into the folder, once all of them are there."""
    options = re.findall(r"^-.*$", lock.read_text(encoding="utf-8"), re.MULTILINE)
    lines = [*options, *(f"{name}=={version}" for name, version in missing)]
    with tempfile.NamedTemporaryFile("w", suffix=".lock", encoding="utf-8") as wanted:
        wanted.write("\n".join(lines) + "\n")
        wanted.flush()
        command = [
            *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-input"),
            *("--wheel-dir", str(folder), "-r", wanted.name),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=FETCH_LIMIT_S
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"wheels of {lock} took longer than {FETCH_LIMIT_S:.0f} s; run it again, what is "
                "there is kept"
            ) from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = (said or [f"pip ended with status {done.returncode}"])[-1].removeprefix("ERROR: ")
        raise UserError(f"wheels of {lock} can't be had: {reason}")
