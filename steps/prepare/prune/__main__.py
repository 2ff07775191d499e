"""Makes a model without a contiguous block of its decoder layers."""

from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest, Workspace
from steps.base.step import main
from steps.config.compression import GivenBlock, LeastImportantBlock, PruneConfig
from steps.config.results import result_of
from steps.config.weights import WeightsResult
from steps.prepare import calibration
from steps.prepare.checkpoint.layout import layers, open_checkpoint
from steps.prepare.checkpoint.stream import rewrite
from steps.prepare.prune.block import Block, prune_transform
from steps.prepare.prune.importance import Importance, measure


def step(
    config: PruneConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Needs the input "model", and "dataset" if importance is to be measured."""
    source = Manifest.read(inputs["model"])
    source.require_whole()
    checkpoint = open_checkpoint(source.directory)
    held = layers(checkpoint.config, source.directory)
    if held != config.layers:
        raise UserError(
            f"the block is for {config.layers} layers, but {source.directory} has {held}; choose a "
            "compression made for this model"
        )
    made = result_of(source, WeightsResult)
    if isinstance(config.block, GivenBlock):
        block = Block(config.block.first, config.block.last)
    else:
        found = _measured(config.block, source, inputs)
        block = found.least(config.block.by, config.block.count)
        made = made.but(
            importance={
                "samples": found.samples,
                "ffn_output": found.ffn_output.tolist(),
                "angular_distance": found.angular_distance.tolist(),
            }
        )
    workspace.result = made.but(dropped_layers=(block.first, block.last)).dumped()
    transform = prune_transform(checkpoint, block)
    total = sum(tensor.size for tensor in checkpoint.tensors if transform.targets(tensor))
    progress = console.progress("prune", total, "bytes")
    rewrite(
        checkpoint,
        workspace.directory,
        transform,
        partial=workspace.partial,
        workers=config.workers,
        advance=progress.add,
    )
    progress.close()


def _measured(
    settings: LeastImportantBlock, source: Manifest, inputs: Mapping[str, Path]
) -> Importance:
    prompts = calibration.load(inputs["dataset"], settings.samples)
    return measure(source.directory, prompts, settings.dtype, settings.device)


if __name__ == "__main__":
    main("prune", PruneConfig, step)
