"""Further training of weights, pruned or not."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from steps.command import main
from steps.console import Console
from steps.errors import UserError
from steps.record import MANIFEST, Manifest, Workspace, partial_directory, sha256_file
from steps.schema import FinetuneConfig


def step(
    config: FinetuneConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """A killed training goes on from its last minute, to the weights that it would have had."""
    from steps.rehearsal import train

    source = Manifest.read(inputs["model"])
    for complaint in source.damage():
        raise UserError(f"{complaint}; delete {source.directory} and re-run")
    recipe = replace(
        train.FINE_TUNE,
        seed=config.seed,
        phases=(train.Phase(config.tokens),),
        adam_rate=train.FINE_TUNE.adam_rate * config.rate_scale,
        muon_rate=train.FINE_TUNE.muon_rate * config.rate_scale,
    )
    partial = workspace.partial or partial_directory(workspace.directory)
    partial.mkdir(parents=True, exist_ok=True)
    # Named by what it starts from: a state of other weights isn't gone on from.
    state = partial / f"{sha256_file(inputs['model'])[:12]}.state"
    progress = console.progress("fine-tune", config.tokens, "tokens")
    made = workspace.directory / "weights"
    train.fine_tune(
        source.directory,
        made,
        recipe,
        lora=(config.lora.rank, config.lora.alpha) if config.lora else None,
        state=state,
        report=progress.add,
    )
    progress.close()
    for path in made.iterdir():
        if path.name != MANIFEST:
            shutil.move(path, workspace.directory / path.name)
    shutil.rmtree(made)
    workspace.result = {**source.result, "finetuned": train.described(recipe)}


if __name__ == "__main__":
    main("finetune", FinetuneConfig, step)
