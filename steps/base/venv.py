"""Virtual environments from locks: complete and marked as such, or made again.

`./reproduce` and `make` begin with `command`, in a Python that has no packages yet: nothing is
imported but Python's own library.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from steps.base import installer
from steps.base.errors import UserError
from steps.base.locks import normal, packages

WAIT_LIMIT_S = 3600.0
LIST_LIMIT_S = 600.0
NAMED = 3
"""How many packages a message names."""

COMPLETE = "complete"
"""File that a finished environment carries: a venv can't be moved into place, so it is marked."""

TOOL = "install"
"""The environment of uv, and of what builds packages without a wheel."""

OURS = "reprise"
"""The installer of what repairs add to an environment; it stands in no lock."""

_LIST = f"""
import importlib.metadata, json
found = [
    (str(d.metadata["Name"]), str(d.version))
    for d in importlib.metadata.distributions()
    if (d.read_text("INSTALLER") or "").strip() != "{OURS}"
]
print(json.dumps(found))
"""

Check = Callable[[Path], None]


def is_whole(home: Path) -> bool:
    return (home / COMPLETE).exists() and (home / "bin/python").exists()


def make(
    home: Path,
    locks: Sequence[Path],
    root: Path,
    log: Path,
    heard: installer.Heard,
    check: Check = lambda python: None,
) -> None:
    """Make the environment unless a complete one is there. Raises UserError if it fails.

    `heard` gets the installer's lines, which end up in `log`; `check` gets the environment's Python
    and checks what was installed before it counts as complete. If several processes want the same
    environment, one makes it.
    """
    try:
        with _alone(home):
            if not is_whole(home):
                _make(home, locks, root, log, heard, check)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{home} can't be made: {reason}; fix it and run again") from error


def _make(
    home: Path,
    locks: Sequence[Path],
    root: Path,
    log: Path,
    heard: installer.Heard,
    check: Check,
) -> None:
    uv = tool(home.parent, root, log, heard)
    given = installer.sources(uv / "bin/python", root)
    python = _empty(home)
    wrong = installer.uv(uv, python, locks, given, heard)
    if wrong:
        raise _failure(locks, wrong, log)
    wrong = "; ".join(differences(python, locks))
    if wrong:
        raise _failure(locks, f"what was installed is something else: {wrong}", log)
    check(python)
    (home / COMPLETE).touch()
    shutil.rmtree(installer.downloads(home), ignore_errors=True)


def _failure(locks: Sequence[Path], wrong: str, log: Path) -> UserError:
    return UserError(f"{' and '.join(map(str, locks))} can't be installed: {wrong:.400}; see {log}")


def tool(homes: Path, root: Path, log: Path, heard: installer.Heard) -> Path:
    """The directory with uv, made on first use by the pip that comes with Python."""
    lock = root / f"envs/{TOOL}.lock"
    home = homes / f"{TOOL}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    with _alone(home):
        if not is_whole(home):
            python = _empty(home)
            if wrong := installer.bring_pip(python, heard):
                raise UserError(f"{python} can't get pip: {wrong:.400}; see {log}")
            wrong = installer.pip(python, lock, installer.sources(python, root), heard)
            if wrong:
                raise _failure([lock], wrong, log)
            shutil.copyfile(lock, home / "lock")
            (home / COMPLETE).touch()
    return home


def logged_tool(root: Path) -> Path:
    """The same for a checkout's own commands; what is said meanwhile goes to .envs/install.log."""
    homes = (root / ".envs").resolve()
    homes.mkdir(parents=True, exist_ok=True)
    log = homes / "install.log"
    with log.open("a", encoding="utf-8") as words:
        return tool(homes, root, log, words.write)


def _empty(home: Path) -> Path:
    """An environment without packages, replacing what is there; returns its Python."""
    discard(home)
    try:
        import venv
    except ImportError as error:
        raise UserError(
            f"{home} can't be made ({error}); on Debian install python3-venv"
        ) from error
    venv.create(home, symlinks=True)
    return home / "bin/python"


def discard(home: Path) -> None:
    """The mark goes first: the rest of an interrupted removal doesn't count as complete."""
    (home / COMPLETE).unlink(missing_ok=True)
    if home.exists():
        shutil.rmtree(home)


def differences(python: Path, locks: Sequence[Path]) -> list[str]:
    """Where the installed packages differ from the locks, a few words each; empty if nowhere.

    Packages outside the environment don't count: its Python is asked without the shell's paths.
    """
    wanted: dict[str, str] = {}
    for lock in locks:
        wanted |= packages(lock)
    found: dict[str, str] = {}
    twice = []
    for name, version in listed(python):
        twice += [f"{name} is there twice"] if normal(name) in found else []
        found[normal(name)] = version
    return shortened(
        [
            *twice,
            *(f"{name} is missing" for name in wanted.keys() - found.keys()),
            *(f"{name} {found[name]} is in no lock" for name in found.keys() - wanted.keys()),
            *(
                f"{name} is {found[name]}, not {wanted[name]}"
                for name in wanted.keys() & found.keys()
                if wanted[name] != found[name]
            ),
        ]
    )


def shortened(words: Sequence[str]) -> list[str]:
    rest = len(words) - NAMED
    return [*sorted(words)[:NAMED], *([f"and {rest} more"] if rest > 0 else [])]


def listed(python: Path) -> list[tuple[str, str]]:
    """Name and version of every package in an environment, from its metadata.

    Raises UserError for a Python that doesn't answer.
    """
    try:
        said = subprocess.run(
            [str(python), "-I", "-c", _LIST],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIST_LIMIT_S,
        )
        return [(name, version) for name, version in json.loads(said.stdout)]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"{python} can't say what it has installed ({error}); delete {python.parent.parent} "
            "and run again, which makes it again"
        ) from error


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One process at a time; waits for the installer that a killed process left behind.

    Without locks if the file system has none.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(home.with_name(f".{home.name}.lock"), "a", encoding="utf-8") as turn:
        os.set_inheritable(turn.fileno(), True)
        until = time.monotonic() + WAIT_LIMIT_S
        waiting = False
        while not _taken(turn.fileno()):
            if not waiting:
                print(f"waiting for another process that makes {home}", file=sys.stderr)
                waiting = True
            if time.monotonic() > until:
                raise UserError(
                    f"another process has been making {home} for {WAIT_LIMIT_S / 60:.0f} minutes; "
                    "end it and run again"
                )
            time.sleep(0.2)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def command(arguments: Sequence[str]) -> int:
    """`HOME LOG LOCK...`: exit status 1 with one sentence if it can't be made."""
    home, log, *locks = map(Path, arguments)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:

            @functools.cache
            def words() -> IO[str]:
                # At the first line, so after the lock: until then another process may write it.
                return opened.enter_context(open(log, "w", encoding="utf-8"))

            place = home.parent.resolve() / home.name
            make(place, locks, Path.cwd(), log, lambda text: words().write(text))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; fix it and re-run", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    return 0 if is_whole(home) else 1
