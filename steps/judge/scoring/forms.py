"""The form of each benchmark's dataset, and how its script prints the scores.

Columns and metrics are those of the reference scripts of v5.1.1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from steps.judge.scoring.metrics import gsm8k_match, niah_exact_match, qa_exact_match

EXACT: Mapping[str, tuple[str, Callable[[str, str], float]]] = {
    "niah_em": ("exact_match", niah_exact_match),
    "qa_em": ("exact_match", qa_exact_match),
    "GSM8K": ("gsm8k", gsm8k_match),
}
"""A dataset's name for a kind of sample, its metric, and how it is judged."""

ROUGE: Mapping[str, tuple[str, ...]] = {
    "rouge": ("rougeL",),
    "OpenOrca": ("rouge1", "rouge2", "rougeL", "rougeLsum"),
    "CNN": ("rouge1", "rouge2", "rougeL", "rougeLsum"),
}
CODE = "MBXP"
"""The kind that is scored by running the generated code."""

SUMS_OPTIONAL = ("OpenOrca",)
"""Kinds whose ROUGE-Lsum the reference prints though no round bounds it; it is left out if
sentences can't be found.
"""


@dataclass(frozen=True)
class Form:
    """`truth`, `kind` and `id` are columns; without `kind` every sample is of `only_kind`. ROUGE is
    rounded to `decimals`; None doesn't round. `gen_len` counts the characters of answers of the
    kinds `gen_len_of`; None means all. `quoted`: metrics are printed as texts; `tokens`: counts of
    tokens are printed too. `graded`: answers are right or wrong
    (steps/judge/scoring/exact.py).
    """

    truth: str
    kind: str | None = None
    only_kind: str = ""
    id: str | None = None
    decimals: int | None = None
    gen_len_of: tuple[str, ...] | None = None
    quoted: bool = False
    tokens: bool = True
    graded: bool = False


FORMS: Mapping[str, Form] = {
    "llama2-70b": Form("output", only_kind="OpenOrca", decimals=4),
    "llama3.1-405b": Form("gt_output", kind="metric"),
    "llama3.1-8b": Form("output", only_kind="CNN", decimals=4, quoted=True, tokens=False),
    "mixtral-8x7b": Form(
        "gt_output", kind="dataset", id="id", decimals=4, gen_len_of=("OpenOrca",)
    ),
    "gpt-oss-120b": Form("ground_truth", kind="dataset", graded=True),
}
