"""The questions as tables with the columns that the benchmark's scripts read."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice

import pandas as pd

from steps.prepare.rehearsal.choices import questions
from steps.prepare.rehearsal.choices.questions import KINDS, Effort, Kind, Split
from steps.prepare.rehearsal.dataset import table

SEED = 1
COLUMNS = ("dataset", "ground_truth", "tok_input", "tok_input_length", "tok_output_length")


def _frame(split: Split, effort: Effort, kinds: tuple[Kind, ...], count: int) -> pd.DataFrame:
    """The first `count` rows of the same table."""
    rows = [
        (one.kind, one.truth, list(one.prompt), len(one.prompt), len(one.answer))
        for one in islice(questions.questions(split, SEED, effort, kinds), count)
    ]
    return table(rows, COLUMNS)


def _parts(effort: Effort, kinds: tuple[Kind, ...]) -> Mapping[str, Callable[[int], pd.DataFrame]]:
    return {
        "evaluation": partial(_frame, "evaluation", effort, kinds),
        "calibration": partial(_frame, "calibration", effort, kinds),
    }


RECIPES = {
    "choices-low": _parts("low", KINDS),
    "choices-high": _parts("high", KINDS),
    "choices-letters": _parts("high", ("gpqa_small",)),
}
"""By recipe, and by part: a function of the number of rows."""
