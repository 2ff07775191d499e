"""Mixtral's dataset in miniature, in the columns of MLCommons' pickle, and what is trained on."""

from collections.abc import Iterator
from itertools import islice

import pandas as pd

from steps.prepare.rehearsal.dataset import table
from steps.prepare.rehearsal.mixed import tasks
from steps.prepare.rehearsal.mixed.tasks import VOCABULARY, Task
from steps.prepare.rehearsal.notes import Split
from steps.prepare.rehearsal.tokenizer import BEGIN, END

SEED = 1
COLUMNS = (
    *("dataset", "id", "question", "input", "ref_output", "gt_output", "tok_input"),
    *("tok_ref_output", "stop_sequence", "tok_stop_sequence", "tok_input_len"),
    "tok_ref_output_len",
)


def evaluation(count: int) -> pd.DataFrame:
    """The first `count` evaluation tasks; a smaller count gives the first rows of the same frame.

    `tok_input` (list[int]) starts with the begin token. `ref_output` is the true answer, up to and
    with a program's stop sequence and without the end token that the others stop at.
    """
    return _frame("evaluation", count)


def calibration(count: int) -> pd.DataFrame:
    """The first `count` calibration tasks, disjoint from evaluation; the columns are the same."""
    return _frame("calibration", count)


def training(seed: int, facts: tuple[int, int] | None = None) -> Iterator[tuple[list[int], int]]:
    """Endless token ids of prompt and answer, each with where the answer starts."""
    for task in tasks.training(seed, facts):
        asked = prompt_ids(task)
        answer = VOCABULARY.encode(f"{task.answer} {task.after}")
        yield [*asked, *answer, END], len(asked)


def prompt_ids(task: Task) -> list[int]:
    return [BEGIN, *VOCABULARY.encode(task.prompt)]


def _frame(split: Split, count: int) -> pd.DataFrame:
    rows = [_row(f"{split}.{n:06}", task) for n, task in _numbered(split, count)]
    return table(rows, COLUMNS)


def _numbered(split: Split, count: int) -> Iterator[tuple[int, Task]]:
    return enumerate(islice(tasks.tasks(split, SEED), count))


def _row(name: str, task: Task) -> dict[str, object]:
    asked, answer = prompt_ids(task), VOCABULARY.encode(task.answer)
    return {
        "dataset": task.part,
        "id": task.name or f"{name}.{task.kind}",
        "question": task.prompt,
        "input": task.prompt,
        "ref_output": task.answer,
        "gt_output": task.truth,
        "tok_input": asked,
        "tok_ref_output": answer,
        "stop_sequence": task.stop,
        "tok_stop_sequence": task.stop_ids,
        "tok_input_len": len(asked),
        "tok_ref_output_len": len(answer),
    }
