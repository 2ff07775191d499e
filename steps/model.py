"""Source weights as an artifact: embedded files, checked against the manifest they ship with."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from steps.command import ROOT, main
from steps.console import Console
from steps.errors import UserError
from steps.record import MANIFEST, Workspace, sha256_file
from steps.schema import ModelConfig


def step(
    config: ModelConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Raises UserError naming the first file that is missing or not what the manifest says."""
    source = ROOT / config.embedded
    try:
        shipped = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, dict[str, str]] = shipped["files"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{source / MANIFEST} is missing or damaged ({error}); restore it with git checkout"
        ) from error
    for name, entry in files.items():
        if not (source / name).is_file() or sha256_file(source / name) != entry["sha256"]:
            raise UserError(
                f"{source / name} is missing or not the file that {MANIFEST} lists; "
                "restore it with git checkout"
            )
        shutil.copyfile(source / name, workspace.directory / name)
    workspace.result = {"name": config.name, "simulated": False, "recipe": shipped["recipe"]}


if __name__ == "__main__":
    main("model", ModelConfig, step)
