"""Commits of models that no public source states: the head of `main` as it was at the first run.

`results/revisions.json` keeps them, by hub and repository, so that every later plan is of the same
weights. It is written once per repository, and the user deletes an entry to take a newer head.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.record import write_atomically

FILE = Path("results/revisions.json")
BRANCH = "main"
HUB = "huggingface"


def text(root: Path) -> str:
    """The file as it is, which plans depend on; "" without one."""
    path = root / FILE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def known(root: Path) -> dict[str, str]:
    """Commits by hub and repository. Raises UserError for a file that holds anything else."""
    held = text(root)
    try:
        found = json.loads(held) if held else {}
        if all(re.fullmatch("[0-9a-f]{40}", entry["commit"]) for entry in found.values()):
            return {name: entry["commit"] for name, entry in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    raise UserError(
        f"{root / FILE} is damaged; restore it, or delete it to look revisions up again"
    )


def name_of(model: Mapping[str, Any]) -> str:
    """The name of a hub's model in the file."""
    return f"{model['fetch']['endpoint'].rstrip('/')}/{model['repository']}"


def record(root: Path, commits: Mapping[str, str], when: str) -> None:
    """Adds those of repositories that aren't known yet."""
    held = json.loads(text(root) or "{}")
    fresh = {name: {"commit": commit, "resolved": when} for name, commit in commits.items()}
    write_atomically(root / FILE, json.dumps({**fresh, **held}, indent=1, sort_keys=True) + "\n")


def pinned(cells: Iterable[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """Cells whose models have the recorded revisions."""
    commits = known(root)
    return [_pinned(cell, commits) for cell in cells]


def _pinned(cell: dict[str, Any], commits: Mapping[str, str]) -> dict[str, Any]:
    model = cell["steps"]["model"]
    commit = commits.get(name_of(model)) if open_ended(model) else None
    if commit is None:
        return cell
    found = {**model, "revision": commit, "branch": BRANCH}
    return {**cell, "steps": {**cell["steps"], "model": found}}


def open_ended(model: Mapping[str, Any]) -> bool:
    """Whether a model's configuration leaves its revision to be looked up."""
    return model.get("source") == HUB and model.get("revision") is None


def unresolved(plan: Path) -> list[dict[str, Any]]:
    """Models of a frozen plan, read as plain JSON, whose revision isn't known yet."""
    frozen = json.loads(plan.read_text(encoding="utf-8"))
    models = [json.loads(job["config"]) for job in frozen["jobs"] if job["step"] == "model"]
    return list({name_of(model): model for model in models if open_ended(model)}.values())
