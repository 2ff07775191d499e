"""Earlier tries of a run: kept aside with their reason, counted, never taken for the result.

`results/EXPERIMENT/runs/CELL/STEP` goes to `results/EXPERIMENT/earlier/CELL/STEP/NUMBER`.
"""

import json
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.record import MANIFEST, Manifest, write_atomically

RUNS, EARLIER = "runs", "earlier"
REASON = "reason.json"


def home(run: Path) -> Path | None:
    """The directory of a run's earlier tries; None for one that isn't below `runs/`."""
    parts = run.parts
    if RUNS not in parts[:-1]:
        return None
    at = len(parts) - 1 - parts[::-1].index(RUNS)
    return Path(*parts[:at], EARLIER, *parts[at + 1 :])


def kept(run: Path) -> list[Path]:
    """Directories of the earlier tries, the oldest first."""
    place = home(run)
    if place is None or not place.is_dir():
        return []
    numbered = [path for path in place.iterdir() if path.name.isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name))


def count(run: Path, same: Callable[[dict[str, Any]], bool]) -> int:
    """Earlier tries with the same configuration; unreadable ones count too."""
    found = 0
    for path in kept(run):
        try:
            found += same(Manifest.read(path / MANIFEST).config)
        except UserError:
            found += 1
    return found


def set_aside(run: Path, reason: str) -> Path:
    """Move a run's directory, with why; returns its new path."""
    place = home(run)
    if place is None:
        raise UserError(f"{run} isn't the directory of a run")
    place.mkdir(parents=True, exist_ok=True)
    last = max((int(path.name) for path in kept(run)), default=0)
    target = place / str(last + 1)
    said = {"reason": reason, "at": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    # Beside it first: a move that is cut short leaves the run where it was.
    write_atomically(place / f"{last + 1}.{REASON}", json.dumps(said, indent=1) + "\n")
    os.rename(run, target)
    return target
