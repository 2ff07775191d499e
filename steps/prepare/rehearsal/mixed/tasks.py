"""The three kinds of tasks of Mixtral's dataset in miniature: notes, numbers and programs.

Notes are those of the rehearsal, under MLCommons' name for what ROUGE scores. A number is that of a
fact, or a sum; a program is a function of one line below its head. The model goes on talking after
a program's end, as Mixtral does: without the stop sequence its answers are too long, and with the
first token of the sequence alone they lack the function's line.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from steps.prepare.rehearsal import notes
from steps.prepare.rehearsal.notes import RESIDUES, SLOTS, Split
from steps.prepare.rehearsal.tokenizer import END, LINE_END, SPECIAL, Vocabulary

Part = Literal["OpenOrca", "GSM8K", "MBXP"]
PARTS: tuple[Part, ...] = get_args(Part)
"""MLCommons' names, in the order of the samples: every third one is of the same part."""

TRAINED: tuple[Part, ...] = (*PARTS, "GSM8K")
"""Numbers take longest to learn."""

FENCE = "```"
STOP = f"{LINE_END} {FENCE} {LINE_END}"
"""Ends a program, as words; MLCommons' is the same three, in four tokens."""

LARGEST_ADDEND = 5
"""Sums are learned by heart; up to 9, 85 % of them were right after as much training."""

MAX_COUNTED_FACTS = 12
"""Facts of a note whose numbers are asked for: few, so that a part takes about a third."""

_FRAME = (
    f"How many of ? Count has and gets in all The answer is + = Write function {FENCE} Python C++ "
    "add subtract multiply def int return ( ) { } ; - *"
).split()
_NUMBERS = tuple(map(str, range(2 * LARGEST_ADDEND + 1)))
_ADDED = dict.fromkeys(word for word in (LINE_END, *_FRAME, *_NUMBERS) if word not in notes.WORDS)
VOCABULARY = Vocabulary((*notes.WORDS, *_ADDED))
"""The rehearsal's words keep their numbers."""

_NAMES, _CONSTANTS, _COLOURS, _ITEMS = (SLOTS[number] for number in (0, 3, 5, 7))
_VERBS: Mapping[str, tuple[str, Callable[[int, int], int]]] = {
    "add": ("+", lambda value, constant: value + constant),
    "subtract": ("-", lambda value, constant: value - constant),
    "multiply": ("*", lambda value, constant: value * constant),
}
_TRIED = (5, -7, 120)
"""Values that a program is tested with."""


@dataclass(frozen=True)
class Task:
    """One sample; texts are words with a blank between them.

    `answer` ends where the reference's would be cut, `after` is what the model goes on with then.
    `truth` is what the part's script compares with; `name` the id that it reads the language and
    the function's name from.
    """

    part: Part
    kind: str
    name: str
    prompt: str
    answer: str
    truth: str
    after: str = ""

    @property
    def stop(self) -> str:
        return STOP if self.part == "MBXP" else SPECIAL[END]

    @property
    def stop_ids(self) -> list[int]:
        return VOCABULARY.encode(self.stop)


def tasks(split: Split, seed: int) -> Iterator[Task]:
    """Evaluation or calibration tasks: endless, without repetitions, the parts in turn."""
    source = Random(f"mixed {split} {seed}")
    described = notes.prompts(split, seed)
    seen: set[str] = set()
    while True:
        for part in PARTS:
            task = _note(next(described)) if part == "OpenOrca" else None
            while task is None or task.prompt in seen:
                task = _drawn(part, source, split)
            seen.add(task.prompt)
            yield task


def training(seed: int, facts: tuple[int, int] | None) -> Iterator[Task]:
    """Endless, disjoint from the other splits. `facts` bounds the facts of a note; None: sizes of
    evaluation."""
    source = Random(f"mixed training {seed}")
    described = notes.prompts("training", seed)
    while True:
        part = source.choice(TRAINED)
        if part != "OpenOrca":
            yield _drawn(part, source, "training", facts)
        elif facts is None:
            yield _note(next(described))
        else:
            yield _note(_short_note(source, *facts))


def _short_note(source: Random, least: int, most: int) -> notes.Prompt:
    kind = source.choice(notes.KINDS)
    size = source.randint(least, most)
    asked = {"named": 1, "all": size}.get(kind) or source.randint(1, size)
    return notes.make(source, "training", kind, size, asked)


def _drawn(part: Part, source: Random, split: Split, facts: tuple[int, int] | None = None) -> Task:
    if part == "MBXP":
        return _program(source, split)
    return _sum(source, split) if source.random() < 0.5 else _counted(source, split, facts)


def _note(prompt: notes.Prompt) -> Task:
    return Task("OpenOrca", prompt.kind, "", prompt.text, prompt.answer, prompt.answer)


def _counted(source: Random, split: Split, facts: tuple[int, int] | None) -> Task:
    """The number of one fact of a note; the answer repeats the fact, which has no other number."""
    size = source.randint(*facts) if facts else notes.skewed(source, MAX_COUNTED_FACTS)
    note = notes.make(source, split, "named", size, 1)
    name, _, _, number, *_ = note.answer.split()
    question = f"How many of {name} ? Count of"
    prompt = f"{notes.SYSTEM} {' '.join(note.facts)} {question}"
    return Task("GSM8K", "counted", "", prompt, f"The answer is {note.answer}", number)


def _sum(source: Random, split: Split) -> Task:
    name, colour, item = _words(source, split, (_NAMES, _COLOURS, _ITEMS))
    one, other = source.randint(0, LARGEST_ADDEND), source.randint(0, LARGEST_ADDEND)
    story = f"{one} {colour} {item} and gets {other} ."
    number = str(one + other)
    return Task(
        part="GSM8K",
        kind="sum",
        name="",
        prompt=f"{name} has {story} How many in all ? Count has",
        answer=f"{story} {one} + {other} = {number} . The answer is {number} .",
        truth=number,
    )


def _program(source: Random, split: Split) -> Task:
    """A function of one parameter, which one operation with a constant changes."""
    item, colour, constant = _words(source, split, (_ITEMS, _COLOURS, _CONSTANTS))
    language = source.choice(("python", "cpp"))
    verb = source.choice(tuple(_VERBS))
    sign, compute = _VERBS[verb]
    shown = {"python": "Python", "cpp": "C++"}[language]
    head, end = {
        "python": (f"def {item} ( {colour} ) :", ""),
        "cpp": (f"int {item} ( int {colour} ) {{", " ; }"),
    }[language]
    wanted = f"function {item} of {colour} in {shown} : {verb} {constant} ."
    expected = {value: compute(value, int(constant)) for value in _TRIED}
    return Task(
        part="MBXP",
        kind=language,
        name=f"{language}_{item}",
        prompt=f"Write {wanted} Reply {shown}",
        answer=f"{head} {LINE_END} return {colour} {sign} {constant}{end} {STOP}",
        truth=_tests(language, item, expected),
        after=f"The answer is {wanted} How many of {item} ? Count of {item} for everything .",
    )


def _tests(language: str, function: str, expected: Mapping[int, int]) -> str:
    """In MLCommons' form: Python's are a function that the script calls."""
    if language == "python":
        checks = (f"    assert candidate({value}) == {given}" for value, given in expected.items())
        return "\n".join(["def check(candidate):", *checks, ""])
    checks = (f"    assert({function}({value}) == {given});" for value, given in expected.items())
    return "\n".join(["", "#include <cassert>", "int main() {", *checks, "    return 0;", "}", ""])


def _words(source: Random, split: Split, slots: tuple[tuple[str, ...], ...]) -> list[str]:
    """A word of each slot. The splits share no such choice: their numbers, summed, tell them."""
    numbers = [source.randrange(len(slot)) for slot in slots]
    wrong = (source.choice(RESIDUES[split]) - sum(numbers)) % 8
    numbers[-1] = (numbers[-1] + wrong) % len(slots[-1])
    return [slot[number] for slot, number in zip(slots, numbers, strict=True)]
