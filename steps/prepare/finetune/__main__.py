"""Trains weights further, pruned or not."""

from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest, Workspace, partial_directory, sha256_file
from steps.base.step import main
from steps.config.compression import FinetuneConfig
from steps.config.results import result_of
from steps.config.weights import WeightsResult
from steps.prepare.checkpoint.layout import open_checkpoint
from steps.prepare.finetune import adapters


def step(
    config: FinetuneConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """A killed training continues from its last checkpoint, to the same weights."""
    source = Manifest.read(inputs["model"])
    source.require_whole()
    checkpoint = open_checkpoint(source.directory)
    if checkpoint.quantized:
        raise UserError(
            f"{source.directory} is quantized, and adapters are trained beside plain weights; "
            "fine-tune first and quantize then"
        )
    partial = workspace.partial or partial_directory(workspace.directory)
    partial.mkdir(parents=True, exist_ok=True)
    # Named by what it starts from: a training of other weights isn't gone on from.
    state = partial / f"{sha256_file(inputs['model'])[:12]}.state"
    trained = adapters.train(config, source.directory, state, console, _sets(inputs))
    progress = console.progress("merge", sum(one.size for one in checkpoint.tensors), "bytes")
    adapters.merge(
        source.directory,
        trained.directory,
        workspace.directory,
        workers=config.merge_workers,
        partial=state.with_suffix(".merged"),
        advance=progress.add,
    )
    progress.close()
    made = result_of(source, WeightsResult).but(finetuned=trained.described)
    workspace.result = made.dumped()


def _sets(inputs: Mapping[str, Path]) -> list[Path]:
    """RULER's, in the order of their names."""
    if "sets" not in inputs:
        return []
    made = Manifest.read(inputs["sets"])
    return [made.file(name) for name in sorted(made.files)]


if __name__ == "__main__":
    main("finetune", FinetuneConfig, step)
