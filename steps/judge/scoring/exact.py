"""exact_match of gpt-oss-120b: answers that are right or wrong, by what the model ends with.

Kinds of samples, what counts as the answer and how kinds are weighted are those of
language/gpt-oss-120b/eval_accuracy.py and eval_mlperf_accuracy.py (b66003e1).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from steps.base.errors import UserError

METRIC = "exact_match"
MOST = 999
"""AIME's answers are whole numbers up to it."""

_FINAL = re.compile(
    r"<\|channel\|>final[^<]*<\|message\|>(?P<said>.*?)(?:<\|return\|>|$)", re.DOTALL
)
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_BOXED = re.compile(r"\\boxed{\s*(\d+)\s*}")
_NUMBER = re.compile(r"Answer:\s*(\d+)(?!\.)\b", re.IGNORECASE)


def final(text: str) -> str:
    """What stands in the final channel of the harmony format; the whole text without one."""
    found = _FINAL.search(text.strip())
    return found["said"].strip() if found else text.strip()


def letter(text: str, last: str) -> str:
    """The option that was chosen, from A to `last`, in upper case; "" if none is named.

    The final channel's first letter counts, then what it calls the answer, then the last thing
    that the whole text calls so; with ten options at last any letter of the final channel.
    """
    said = _BOLD.sub(r"\1", final(text))
    if said[:2] in ("['", '["') and said[-2:] in ("']", '"]'):
        said = said[2:-2].strip()
    said, whole = _unescaped(said).strip(), _unescaped(text.strip())
    option = f"([A-{last}])"
    # Before the option no two runs of blanks stand side by side: of thousands of blanks, which a
    # model may write, every way to share them out would be tried.
    first = re.match(rf"[^a-zA-Z]*{option}(?:[^a-zA-Z]|$)", said, re.IGNORECASE)
    first = first or re.search(rf"\bAnswer\s*(?:[:.]\s*)?{option}\b", said, re.IGNORECASE)
    if first:
        return first[1].upper()
    named = rf"\b(?:FINAL\s*)?ANSWER\b\s*(?:[:=]\s*)?(?:\(\s*)?{option}\s*\)?(?:\s*$|[^A-Za-z])"
    found = re.findall(named, whole, re.IGNORECASE)
    if not found and last == "J":
        found = re.findall(rf"\b{option}\b", said, re.IGNORECASE)
    return str(found[-1]).upper() if found else ""


def _unescaped(text: str) -> str:
    return text.replace(r"\n", "\n").replace(r"\'", "'")


def number(text: str) -> str:
    """The whole number in the last box, else behind the last "Answer:"; "" without one."""
    found = _BOXED.findall(text) or _NUMBER.findall(text)
    digits = found[-1].lstrip("0") or "0" if found else ""
    # int() reads no more than 4,300 digits.
    return str(int(digits)) if 0 < len(digits) <= len(str(MOST)) else ""


_Read = Callable[[str], str]

READ: Mapping[str, _Read | str] = {
    "gpqa": partial(letter, last="D"),
    "mmlu_pro": partial(letter, last="J"),
    "math500": "its answers are graded with prm800k, a submodule of the reference implementation",
    "aime": number,
    "livecodebench": "its answers are programs, which the tests of LiveCodeBench judge, and those "
    "aren't in MLCommons' files",
    "mmlu": partial(letter, last="J"),
}
"""What reads the answer, by a part of the kind's name, of which the first counts; a sentence's part
for kinds that can't be judged here."""

REPEATS: Mapping[str, int] = {"aime25": 8, "gpqa_diamond": 5, "livecodebench_v6": 3}
"""How often each question of a kind is in the dataset: a kind counts by its questions."""


def reader(kind: str) -> _Read | str | None:
    """What reads answers of this kind, or why nothing does; None for a kind of other benchmarks."""
    return next((read for part, read in READ.items() if part in kind.lower()), None)


def require(kinds: Iterable[str]) -> None:
    """Raises UserError naming the first kind that can't be judged."""
    for kind in sorted(set(kinds)):
        read = reader(kind)
        if read is None:
            raise UserError(f"the dataset has samples of kind {kind!r}, which no metric scores")
        if isinstance(read, str):
            raise UserError(f"samples of {kind} can't be scored by this version: {read}")


def right(kind: str, truth: str, text: str) -> bool:
    """Whether the answer is the true one. Raises UserError for a kind that can't be judged."""
    require([kind])
    read = reader(kind)
    found = read(text) if callable(read) else ""
    return found != "" and found == _plain(truth)


def _plain(truth: str) -> str:
    """A letter in upper case; a number without what a table's column of floats adds."""
    text = truth.strip().upper().removesuffix(".0")
    return str(int(text)) if text.isdecimal() else text


def whole(sums: Mapping[str, float], counts: Mapping[str, int]) -> float:
    """The score, 0 to 100, from the kinds' right answers and numbers of samples."""
    repeats = {kind: REPEATS.get(kind, 1) for kind in counts}
    reached = sum(sums[kind] / repeats[kind] for kind in counts)
    return 100 * reached / sum(count / repeats[kind] for kind, count in counts.items())
