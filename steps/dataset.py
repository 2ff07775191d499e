"""Prompts of a generated benchmark, in the columns of MLCommons' Llama 2 pickle."""

from collections.abc import Mapping
from pathlib import Path

from steps.command import main
from steps.console import Console
from steps.record import Workspace
from steps.rehearsal import dataset
from steps.schema import DatasetConfig


def step(
    config: DatasetConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes evaluation.pkl and calibration.pkl; the row is LoadGen's sample index."""
    for name, table in (
        ("evaluation", dataset.evaluation(config.evaluation_count)),
        ("calibration", dataset.calibration(config.calibration_count)),
    ):
        table.to_pickle(workspace.directory / f"{name}.pkl")
        workspace.result[name] = {
            "samples": len(table),
            "input_tokens_mean": round(float(table["tok_input_length"].mean()), 2),
            "output_tokens_mean": round(float(table["tok_output_length"].mean()), 2),
        }


if __name__ == "__main__":
    main("dataset", DatasetConfig, step)
