"""Weights that the repository carries, below a manifest with the digest of each file."""

import json
import shutil
from pathlib import Path
from typing import Any

from steps import ROOT
from steps.base.errors import UserError
from steps.base.record import MANIFEST, sha256_file


def copy(embedded: str, target: Path) -> dict[str, Any]:
    """Copies the files of a directory of the checkout, and returns the weights' recipe.

    Raises UserError naming the first file that is missing or doesn't match the manifest.
    """
    source = ROOT / embedded
    try:
        shipped = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, dict[str, str]] = shipped["files"]
        recipe: dict[str, Any] = shipped["recipe"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{source / MANIFEST} is missing or damaged ({error}); restore it with git checkout"
        ) from error
    for name, entry in files.items():
        if not (source / name).is_file() or sha256_file(source / name) != entry["sha256"]:
            raise UserError(
                f"{source / name} is missing or differs from {MANIFEST}; "
                "restore it with git checkout"
            )
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    return recipe
