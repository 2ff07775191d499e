"""Weights in another precision."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from steps.command import main
from steps.console import Console
from steps.errors import UserError
from steps.record import MANIFEST, RECORD, Manifest, Workspace
from steps.rehearsal import compress
from steps.schema import QuantizeConfig


def step(
    config: QuantizeConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Simulated: every linear layer's weights are rounded to the format and stored in bf16."""
    if config.tool != "simulated" or config.format not in ("fp8", "int2"):
        raise UserError(
            f"{config.tool} can't make {config.format} here; choose precision fp8 or int2 of a "
            "benchmark with simulated quantization"
        )
    source = Manifest.read(inputs["model"])
    for complaint in source.damage():
        raise UserError(f"{complaint}; delete {source.directory} and re-run")
    made = workspace.directory / "weights"
    compress.quantize_simulated(source.directory, made, config.format)
    for path in made.iterdir():
        if path.name not in (MANIFEST, RECORD):
            shutil.move(path, workspace.directory / path.name)
    shutil.rmtree(made)
    workspace.result = {**source.result, "simulated": True, "format": config.format}


if __name__ == "__main__":
    main("quantize", QuantizeConfig, step)
