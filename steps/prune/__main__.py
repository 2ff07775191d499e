"""A model without a contiguous block of its decoder layers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from steps.checkpoint.layout import open_checkpoint
from steps.checkpoint.stream import rewrite
from steps.command import main
from steps.console import Console
from steps.errors import UserError
from steps.prune.block import Block, prune_transform
from steps.prune.importance import Importance, measure
from steps.record import Manifest, Workspace
from steps.strict import Name, Positive, Strict


class GivenBlock(Strict):
    """Layers `first` to `last`, both included, counted from 0."""

    by: Literal["layers"]
    first: Annotated[int, Field(ge=0)]
    last: Annotated[int, Field(ge=0)]


class LeastImportantBlock(Strict):
    """The `count` neighbouring layers that do least on the first `samples` calibration prompts."""

    by: Literal["ffn_output", "angular_distance"]
    count: Positive
    samples: Positive
    dtype: Literal["bfloat16", "float16", "float32"]
    device: Literal["cpu", "auto"]


class PruneConfig(Strict):
    """`workers`: shards rewritten at once; each takes a thread and a few megabytes."""

    model: Name
    block: Annotated[GivenBlock | LeastImportantBlock, Field(discriminator="by")]
    workers: Positive


def step(
    config: PruneConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Needs the input "model", and "dataset" if importance is to be measured."""
    source = Manifest.read(inputs["model"])
    checkpoint = open_checkpoint(source.directory)
    workspace.result = dict(source.result)
    if isinstance(config.block, GivenBlock):
        block = Block(config.block.first, config.block.last)
    else:
        found = _measured(config.block, source, inputs)
        block = found.least(config.block.by, config.block.count)
        workspace.result["importance"] = {
            "samples": found.samples,
            "ffn_output": found.ffn_output.tolist(),
            "angular_distance": found.angular_distance.tolist(),
        }
    workspace.result["dropped_layers"] = [block.first, block.last]
    transform = prune_transform(checkpoint, block)
    total = sum(tensor.size for tensor in checkpoint.tensors if transform.targets(tensor))
    progress = console.progress(f"prune {config.model}", total, "bytes")
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
    import pandas

    dataset = Manifest.read(inputs["dataset"])
    # Unpickling runs code, so nothing but the very bytes that the recipe wrote is unpickled.
    for complaint in dataset.damage():
        raise UserError(f"{complaint}; delete {dataset.directory} and re-run")
    prompts = list(pandas.read_pickle(dataset.file("calibration.pkl"))["tok_input"])
    if settings.samples > len(prompts):
        raise UserError(
            f"importance wants {settings.samples} calibration prompts, {dataset.directory} has "
            f"{len(prompts)}; lower samples"
        )
    chosen = [[int(token) for token in prompt] for prompt in prompts[: settings.samples]]
    return measure(source.directory, chosen, settings.dtype, settings.device)


if __name__ == "__main__":
    main("prune", PruneConfig, step)
