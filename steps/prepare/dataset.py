"""Prompts of a benchmark: generated, in the columns of MLCommons' Llama 2 pickle, or ready-made."""

from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.record import Workspace
from steps.base.step import main
from steps.config.artifacts import CaptionDataset, DatasetConfig, ReadyDataset
from steps.prepare import captions, ready
from steps.prepare.rehearsal import dataset


def step(
    config: DatasetConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes evaluation.pkl and calibration.pkl; the row is LoadGen's sample index."""
    chosen = config.root
    if isinstance(chosen, ReadyDataset):
        ready.write(chosen, inputs.get("files"), workspace)
        return
    if isinstance(chosen, CaptionDataset) or chosen.recipe == "shapes":
        captions.write(chosen, inputs["model"], workspace)
        return
    for name, table in (
        ("evaluation", dataset.evaluation(chosen.evaluation_count)),
        ("calibration", dataset.calibration(chosen.calibration_count)),
    ):
        table.to_pickle(workspace.directory / f"{name}.pkl")
        workspace.result[name] = {
            "samples": len(table),
            "input_tokens_mean": round(float(table["tok_input_length"].mean()), 2),
            "output_tokens_mean": round(float(table["tok_output_length"].mean()), 2),
        }


if __name__ == "__main__":
    main("dataset", DatasetConfig, step)
