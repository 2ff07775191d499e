"""Prompts of a benchmark: generated, in the columns of MLCommons' Llama 2 pickle, or ready-made."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from steps.base.console import Console
from steps.base.record import Workspace
from steps.base.step import main
from steps.config.artifacts import DatasetConfig, ReadyDataset
from steps.config.prompts import DatasetResult, PromptsResult
from steps.prepare import ready
from steps.prepare.rehearsal import dataset

if TYPE_CHECKING:
    import pandas


def step(
    config: DatasetConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes evaluation.pkl and calibration.pkl; the row is LoadGen's sample index."""
    chosen = config.root
    if isinstance(chosen, ReadyDataset):
        made = ready.write(chosen, inputs.get("files"), workspace.directory)
        workspace.result = made.dumped()
        return
    tables = {
        "evaluation": dataset.evaluation(chosen.evaluation_count),
        "calibration": dataset.calibration(chosen.calibration_count),
    }
    for name, table in tables.items():
        table.to_pickle(workspace.directory / f"{name}.pkl")
    evaluation, calibration = map(_counted, tables.values())
    made = DatasetResult(evaluation=evaluation, calibration=calibration)
    workspace.result = made.dumped()


def _counted(table: "pandas.DataFrame") -> PromptsResult:
    return PromptsResult(
        samples=len(table),
        input_tokens_mean=round(float(table["tok_input_length"].mean()), 2),
        output_tokens_mean=round(float(table["tok_output_length"].mean()), 2),
    )


if __name__ == "__main__":
    main("dataset", DatasetConfig, step)
