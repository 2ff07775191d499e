"""Prompts of a benchmark: generated, in the columns of MLCommons' pickles, or ready-made."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from steps.base.console import Console
from steps.base.record import Workspace
from steps.base.step import main
from steps.config.artifacts import CaptionDataset, DatasetConfig, ReadyDataset
from steps.config.prompts import DatasetResult, PromptsResult
from steps.prepare import captions, ready
from steps.prepare.rehearsal import dataset
from steps.prepare.rehearsal.choices import dataset as choices
from steps.prepare.rehearsal.mixed import dataset as mixed

if TYPE_CHECKING:
    import pandas

Frame = Callable[[int], "pandas.DataFrame"]

GENERATED: Mapping[str, Mapping[str, Frame]] = {
    "rehearsal": {"evaluation": dataset.evaluation, "calibration": dataset.calibration},
    "rehearsal-mixed": {"evaluation": mixed.evaluation, "calibration": mixed.calibration},
    **choices.RECIPES,
}
"""The first prompts of each part, by recipe."""

LENGTHS: Mapping[str, tuple[str, str]] = {
    "rehearsal-mixed": ("tok_input_len", "tok_ref_output_len"),
}
"""Columns with the tokens of prompt and true answer, of recipes that call them otherwise."""

USUAL = ("tok_input_length", "tok_output_length")


def step(
    config: DatasetConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes evaluation.pkl and calibration.pkl; the row is LoadGen's sample index."""
    chosen = config.root
    if isinstance(chosen, ReadyDataset):
        made = ready.write(chosen, inputs.get("files"), workspace.directory)
        workspace.result = made.dumped()
        return
    if isinstance(chosen, CaptionDataset) or chosen.recipe == "shapes":
        workspace.result = captions.write(chosen, inputs["model"], workspace.directory).dumped()
        return
    counts = {"evaluation": chosen.evaluation_count, "calibration": chosen.calibration_count}
    columns = LENGTHS.get(chosen.recipe, USUAL)
    kept: dict[str, PromptsResult] = {}
    for name, frame in GENERATED[chosen.recipe].items():
        table = frame(counts[name])
        table.to_pickle(workspace.directory / f"{name}.pkl")
        kept[name] = _counted(table, *columns)
    made = DatasetResult(evaluation=kept["evaluation"], calibration=kept["calibration"])
    workspace.result = made.dumped()


def _counted(table: "pandas.DataFrame", asked: str, answered: str) -> PromptsResult:
    return PromptsResult(
        samples=len(table),
        input_tokens_mean=round(float(table[asked].mean()), 2),
        output_tokens_mean=round(float(table[answered].mean()), 2),
    )


if __name__ == "__main__":
    main("dataset", DatasetConfig, step)
