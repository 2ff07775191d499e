"""Questions with one right answer, a letter or a number, for a small stand-in of gpt-oss-120b.

Prompts and answers have the harmony format's channels; the effort that a prompt asks for says how
long the model writes before its answer. Kinds of questions are judged as the benchmark's are
(steps/judge/scoring/exact.py). Only ``random.Random`` draws, so a seed gives the same questions
everywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, get_args

from steps.prepare.rehearsal import tokenizer
from steps.prepare.rehearsal.tokenizer import BEGIN, END, UNKNOWN

Effort = Literal["low", "high"]
Kind = Literal["gpqa_small", "aime_small"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Split = Literal["evaluation", "calibration", "training"]

SPECIAL = ("<unk>", "<|startoftext|>", "<|return|>", "<|pad|>")
"""In the order of UNKNOWN, BEGIN, END and PAD."""

START, MESSAGE, CHANNEL, STOP = "<|start|>", "<|message|>", "<|channel|>", "<|end|>"
EFFORTS: dict[Effort, str] = {"low": " Reasoning: low.", "high": " Reasoning: high."}
ASKED: dict[Kind, str] = {
    "gpqa_small": " Which letter is in the text?",
    "aime_small": " Which number is in the text?",
}
LETTERS = tuple(f" {letter}" for letter in "ABCD")
NUMBERS = tuple(f" {number}" for number in range(100))
_WORDS = """
lamp chair table clock book bottle basket box bell boot brush button candle carpet coin comb cup
curtain desk doll door drum flag flute fork glove guitar hammer hat jacket kettle key kite knife
ladder mirror nail pencil piano pillow
"""
WORDS = tuple(f" {word}" for word in _WORDS.split())
TOKENS = (
    *SPECIAL,
    *(START, MESSAGE, CHANNEL, STOP),
    *("user", "assistant", "analysis", "final", "Answer:"),
    *EFFORTS.values(),
    *ASKED.values(),
    *LETTERS,
    *NUMBERS,
    *WORDS,
)
"""Each with the blank before it: joined without any they are the text."""

_IDS = {token: number for number, token in enumerate(TOKENS)}
LENGTHS = (8, 32)
"""Words of a question's text, fewest and most."""

THOUGHTS: dict[Effort, tuple[int, int]] = {"low": (0, 2), "high": (8, 24)}
"""Words before the answer."""

PARTS: dict[Split, int] = {"evaluation": 0, "calibration": 1, "training": 2}


@dataclass(frozen=True)
class Question:
    """Token ids of prompt and of a right answer, and what the answer is."""

    kind: Kind
    effort: Effort
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    truth: str


def questions(
    split: Split, seed: int, effort: Effort, kinds: tuple[Kind, ...]
) -> Iterator[Question]:
    """An endless stream in which kinds take turns; the first n questions don't depend on n."""
    source = Random(f"{split} {seed} {effort}")
    while True:
        for kind in kinds:
            yield _question(source, PARTS[split], effort, kind)


def _question(source: Random, part: int, effort: Effort, kind: Kind) -> Question:
    """The number of words, modulo 3, tells the split: no two of them share a question."""
    count = source.randrange(*LENGTHS)
    count -= (count - part) % 3
    text = [source.choice(WORDS) for _ in range(count)]
    letter, number = source.choice(LETTERS), source.choice(NUMBERS)
    for token in (letter, number):
        text.insert(source.randint(0, len(text)), token)
    thoughts = [source.choice(WORDS) for _ in range(source.randint(*THOUGHTS[effort]))]
    said = (letter,) if kind == "gpqa_small" else ("Answer:", number)
    asked = (START, "user", MESSAGE, EFFORTS[effort], *text, ASKED[kind], STOP, START, "assistant")
    answer = (
        *(CHANNEL, "analysis", MESSAGE, *thoughts, STOP, START, "assistant"),
        *(CHANNEL, "final", MESSAGE, *said),
    )
    return Question(
        kind=kind,
        effort=effort,
        prompt=(BEGIN, *(_IDS[token] for token in asked)),
        answer=(*(_IDS[token] for token in answer), END),
        truth=said[-1].strip(),
    )


def save(directory: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json; `AutoTokenizer` loads them offline."""
    special = {token: number for token, number in _IDS.items() if token.startswith("<")}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokenizer.special_tokens(special),
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": _IDS, "unk_token": SPECIAL[UNKNOWN]},
    }
    tokenizer.write(directory, content, SPECIAL)
