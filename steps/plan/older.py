"""Runs that an earlier version of Reprise left where a plan's own would go."""

import json
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.record import FORMAT


def refuse_older(plan: Path, root: Path) -> None:
    """Raises UserError if runs of the plan are there in an earlier format of records.

    They were made by other code, so this version would measure them again, and nobody asked for
    that. Like plan/unsupported.py it reads a frozen plan as plain JSON.
    """
    frozen = json.loads(plan.read_text(encoding="utf-8"))
    runs = [root / job["output"] for job in frozen["jobs"] if job["step"].endswith("_run")]
    older = [path for path in runs if path.is_file() and _is_older(path)]
    if older:
        home = older[0].relative_to(root).parents[-3]
        count = "a run" if len(older) == 1 else f"{len(older)} runs"
        raise UserError(
            f"{home} has {count} of an earlier version of Reprise (format 1 of records, this "
            f"version writes {FORMAT}): this version reads it (verify, validate, compare) but "
            f"would measure again; move {home} aside to keep it, or delete it, then run "
            "./reproduce"
        )


def _is_older(manifest: Path) -> bool:
    """False for an unreadable file: the step that needs it reports it."""
    try:
        fields: Any = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and not {"format", "digest"} & fields.keys()
