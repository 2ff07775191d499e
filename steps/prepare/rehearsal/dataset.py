"""The rehearsal benchmark's data: evaluation and calibration frames, and the training stream."""

from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random

import pandas as pd

from steps.prepare.rehearsal import notes, tokenizer
from steps.prepare.rehearsal.notes import Prompt, Split
from steps.prepare.rehearsal.tokenizer import NOTES

SEED = 1


def evaluation(count: int) -> pd.DataFrame:
    """The first `count` evaluation prompts; a smaller count gives the first rows of the same frame.

    Columns are those of MLCommons' Llama 2 pickle. `tok_input` (list[int]) starts with the begin
    token; `output` and `tok_output` hold the true answer without special tokens, so a perfect
    model generates `tok_output_length` + 1 tokens. The last word of `origin` names the task kind.
    """
    return _frame("evaluation", count)


def calibration(count: int) -> pd.DataFrame:
    """The first `count` calibration prompts, disjoint from evaluation; the columns are the same."""
    return _frame("calibration", count)


def training(
    seed: int,
    facts: tuple[int, int] | None = None,
    answered: tuple[int, int] | None = None,
) -> Iterator[Prompt]:
    """Endless training prompts, disjoint from evaluation and calibration by construction.

    With bounds for the facts of a note and for those asked for, sizes are uniform between them
    (an answer never exceeds its note, "all" asks for the whole note, "named" for one fact);
    without, sizes are those of evaluation.
    """
    if facts is None or answered is None:
        yield from notes.prompts("training", seed)
        return
    source = Random(seed)
    while True:
        kind = source.choice(notes.KINDS)
        size = source.randint(*facts)
        asked = min(size, source.randint(*answered))
        if kind == "all":
            asked = size = min(size, notes.MAX_ANSWER_FACTS)
        elif kind == "named":
            asked = 1
        yield notes.make(source, "training", kind, size, asked)


def prompt_ids(prompt: Prompt) -> list[int]:
    """What the model reads: the begin token and the prompt's words."""
    return [tokenizer.BEGIN, *NOTES.encode(prompt.text)]


def sample(prompt: Prompt) -> tuple[list[int], int]:
    """Token ids of prompt and answer, and where the answer starts."""
    asked = prompt_ids(prompt)
    return [*asked, *NOTES.encode(prompt.answer), tokenizer.END], len(asked)


def _frame(split: Split, count: int) -> pd.DataFrame:
    rows = []
    for number, prompt in enumerate(islice(notes.prompts(split, SEED), count)):
        asked, answer = prompt_ids(prompt), NOTES.encode(prompt.answer)
        rows.append(
            {
                "id": f"{split}.{number:06}",
                "origin": f"rehearsal {prompt.kind}",
                "system_prompt": notes.SYSTEM,
                "question": prompt.body,
                "input": prompt.text,
                "output": prompt.answer,
                "tok_input": asked,
                "tok_output": answer,
                "tok_input_length": len(asked),
                "tok_output_length": len(answer),
            }
        )
    return table(rows, COLUMNS)


def table(rows: Sequence[object], columns: Sequence[str]) -> pd.DataFrame:
    """With strings as Python's own: those of pandas 3 can't be unpickled by pandas 2, which images
    of engines may have."""
    plain = pd.DataFrame(rows, columns=pd.Index(columns, dtype=object))
    return plain.astype({name: object for name in plain.select_dtypes("string")})


COLUMNS = (
    "id",
    "origin",
    "system_prompt",
    "question",
    "input",
    "output",
    "tok_input",
    "tok_output",
    "tok_input_length",
    "tok_output_length",
)
