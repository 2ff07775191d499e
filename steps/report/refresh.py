"""When the page of an experiment is made again, and its path; without the drawing libraries. A page
belongs to a digest of all its inputs; while that is the same, so is the page.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import canonical_json, sha256_file
from steps.plan.code import PAGE as PAGE_CODE
from steps.plan.code import code_digest
from steps.plan.plan import Plan
from steps.plan.registry import PAGE as FOLDER
from steps.plan.states import CellState
from steps.report.frontier import FRONTIER
from steps.report.summary import roles

PAGE = "index.html"
DIGEST = "made-from.json"
LIMIT_S = 600.0
"""Limit for making one page; 500 results take half a minute."""
WAIT_S = 60.0
"""Limit for another process that is making the same page."""


def folder_of(plan: Plan, root: Path) -> Path:
    return root / FOLDER.format(experiment=plan.experiment)


def digest_of(plan: Plan, root: Path, cells: tuple[CellState, ...]) -> str:
    """The digest of the page's content: the plan's results, their states, and the code that writes
    it.

    How long a running step still takes is left out: it changes by the second.
    """
    found = {role: sha256_file(path) for role, path in roles(plan, root).items()}
    tuned = [path.with_name(FRONTIER) for path in roles(plan, root).values()]
    states = [
        cell.model_dump(mode="json", exclude={"parts": {"__all__": {"seconds_left"}}})
        for cell in cells
    ]
    jobs = hashlib.sha256(canonical_json(plan.model_dump(mode="json")).encode()).hexdigest()
    frontiers = [sha256_file(path) for path in tuned if path.is_file()]
    whole = canonical_json([jobs, found, frontiers, states, code_digest(PAGE_CODE, root)])
    return hashlib.sha256(whole.encode()).hexdigest()


def is_current(home: Path, digest: str) -> bool:
    """Whether the page there is the one of a digest."""
    try:
        made = json.loads((home / DIGEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(made == digest) and (home / PAGE).is_file()


def bring_up_to_date(
    path: Path, plan: Plan, root: Path, cells: tuple[CellState, ...], python: Path
) -> Path:
    """The page of a frozen plan; if outdated, made by an environment that can draw.

    Raises UserError if it can't be made.
    """
    home, digest = folder_of(plan, root), digest_of(plan, root, cells)
    if is_current(home, digest):
        return home / PAGE
    command = [str(python), "-m", "steps.report", str(path), digest]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"the page wasn't made within {LIMIT_S:.0f} s; run ./reproduce report"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"the page can't be made: {last.removeprefix('error: report: ')}")
    return home / PAGE


@contextlib.contextmanager
def replace(home: Path, digest: str) -> Iterator[Path]:
    """A directory whose content replaces `home` if all goes well; one process at a time."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with _alone(home.with_name(f".{home.name}.lock")):
        temporary, aside = (home.with_name(f".{home.name}.{end}") for end in ("tmp", "old"))
        for left in (temporary, aside):
            shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        (temporary / DIGEST).write_text(json.dumps(digest) + "\n", encoding="utf-8")
        if home.exists():
            os.rename(home, aside)
        os.rename(temporary, home)
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    limit = time.monotonic() + WAIT_S
    with path.open("w", encoding="ascii") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > limit:
                    raise UserError(
                        f"another is making {path.parent}'s page; wait for it"
                    ) from error
                time.sleep(0.1)
        yield
