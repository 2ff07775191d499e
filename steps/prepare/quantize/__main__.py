"""Makes weights in another precision."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import MANIFEST, RECORD, Manifest, Workspace
from steps.base.step import main
from steps.config.compression import QuantizeConfig, QuarkOptions, StreamingOptions
from steps.config.results import result_of
from steps.config.weights import WeightsResult
from steps.prepare import calibration
from steps.prepare.checkpoint.layout import open_checkpoint
from steps.prepare.checkpoint.quantize import Mxfp4Config, mxfp4_transform
from steps.prepare.checkpoint.rounded import Rounded
from steps.prepare.checkpoint.stream import rewrite


def step(
    config: QuantizeConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Needs the input "model", and "dataset" if the tool calibrates.

    `result.simulated` says that the weights are bf16 again; `result.format` is their format, or the
    one they were rounded to.
    """
    source = Manifest.read(inputs["model"])
    source.require_whole()
    if open_checkpoint(source.directory).quantized:
        raise UserError(f"{source.directory} is quantized already; start from its source weights")
    options = config.options
    rounded = isinstance(options, StreamingOptions) and options.rounded
    simulated = config.tool == "simulated" or rounded
    made = result_of(source, WeightsResult).but(simulated=simulated, format=config.format)
    if isinstance(config.options, QuarkOptions):
        made = made.but(calibrated=_with_quark(config.options, source, inputs, workspace))
    elif isinstance(config.options, StreamingOptions):
        _streaming(config.options, source, workspace, console)
    elif config.tool == "simulated":
        _simulated(config, source, workspace)
    else:
        raise UserError(f"this version can't run {config.tool}; choose another precision")
    workspace.result = made.dumped()


def _with_quark(
    options: QuarkOptions, source: Manifest, inputs: Mapping[str, Path], workspace: Workspace
) -> dict[str, Any]:
    """What the weights were calibrated on."""
    from steps.prepare.quantize import quark

    count = options.num_calib_data
    prompts = calibration.load(inputs["dataset"], count, answers=options.calibrate_answers)
    texts = calibration.texts(inputs["dataset"], count) if options.version == quark.AMDS else ()
    return quark.quantize(source.directory, workspace.directory, options, prompts, texts)


def _streaming(
    options: StreamingOptions, source: Manifest, workspace: Workspace, console: Console
) -> None:
    checkpoint = open_checkpoint(source.directory)
    settings = Mxfp4Config(
        activations=options.activations,
        scale_calculation_mode=options.scale_calculation_mode,
        exclude=options.exclude,
    )
    chosen = mxfp4_transform(checkpoint, settings)
    progress = console.progress(
        "quantize", sum(tensor.size for tensor in checkpoint.tensors), "bytes"
    )
    rewrite(
        checkpoint,
        workspace.directory,
        Rounded(chosen) if options.rounded else chosen,
        partial=workspace.partial,
        workers=options.workers,
        advance=progress.add,
    )
    progress.close()


def _simulated(config: QuantizeConfig, source: Manifest, workspace: Workspace) -> None:
    from steps.prepare.rehearsal import compress

    if config.format not in ("fp8", "int2"):
        raise UserError(f"{config.format} can't be simulated; choose precision int2")
    made = workspace.directory / "weights"
    compress.quantize_simulated(source.directory, made, config.format)
    for path in made.iterdir():
        if path.name not in (MANIFEST, RECORD):
            shutil.move(path, workspace.directory / path.name)
    shutil.rmtree(made)


if __name__ == "__main__":
    main("quantize", QuantizeConfig, step)
