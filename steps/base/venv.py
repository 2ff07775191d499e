"""Virtual environments of locks: whole and marked as such, or made anew."""

import shutil
import subprocess
import threading
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from steps.base.errors import UserError

LIMIT_S = 3600.0
WHEELS = "wheels"
"""Directory of a checkout that came as a bundle: no index is asked then."""

COMPLETE = "complete"
"""File that a finished environment carries: a venv can't be moved into place, so it is marked."""


def is_whole(home: Path) -> bool:
    return (home / COMPLETE).exists()


def make(
    home: Path,
    locks: Sequence[Path],
    root: Path,
    log: Path,
    heard: Callable[[str], object],
    check: Callable[[Path], None] = lambda python: None,
) -> None:
    """In place of whatever is there. Raises UserError if a package can't be had.

    `heard` gets pip's lines, which end up in `log`; `check` gets the environment's Python and looks
    at what was installed before it counts as whole.
    """
    python = home / "bin" / "python"
    shutil.rmtree(home, ignore_errors=True)
    try:
        venv.create(home, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"{home} can't be made ({error}); on Debian install python3-venv"
        ) from error
    _install(python, locks, root, log, heard)
    check(python)
    (home / COMPLETE).touch()


def _install(
    python: Path, locks: Sequence[Path], root: Path, log: Path, heard: Callable[[str], object]
) -> None:
    """The locks list everything, so nothing is resolved: what is not in them is not installed."""
    command = [str(python), "-m", "pip", "install", "--no-deps", "--no-input"]
    if (root / WHEELS).is_dir():
        command += ["--no-index", "--find-links", str(root / WHEELS)]
    command += [part for lock in locks for part in ("-r", str(lock))]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    timer = threading.Timer(LIMIT_S, process.kill)
    timer.start()
    errors = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            heard(line)
            if line.startswith("ERROR: "):
                errors.append(line.removeprefix("ERROR: ").strip())
        status = process.wait(LIMIT_S)
    finally:
        timer.cancel()
        process.kill()
    if status:
        reason = errors[-1] if errors else f"pip ended with status {status}"
        wanted = " and ".join(map(str, locks))
        raise UserError(f"{wanted} can't be installed: {reason}; see {log}")
