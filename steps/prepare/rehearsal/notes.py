"""The grammar of the rehearsal benchmark: notes full of facts, questions and their true answers.

A fact is one sentence of nine words, for example ``Anna sold Smith 37 large red Oslo lamps .``.
No word of any slot occurs twice in a note, so a fact can be found by each of its words. A question
asks for some of the facts and the true answer repeats them word for word.

Only ``random.Random`` decides what is drawn, so a seed gives the same notes on every machine.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Literal, get_args

SLOTS: tuple[tuple[str, ...], ...] = tuple(
    tuple(words.split())
    for words in (
        # Who
        "Anna Boris Clara David Elena Felix Grace Henry Irene Jacob Karla Louis Maria Nadia Oscar "
        "Paula Quinn Rosa Simon Tanya Ulric Vera Walter Xenia Yusuf Zelda Amir Bella Cyrus Diana "
        "Ethan Fiona Gavin Heidi Isaac Julia Kevin Laura Marco Nina Oliver Petra Ralph Sofia "
        "Tomas Ursula Victor Wanda",
        # did what
        "sold gave sent lent brought showed offered promised handed mailed passed bought made "
        "built found fetched ordered left threw tossed served loaned leased rented shipped wired "
        "posted rolled granted awarded spared kept picked chose reserved booked carved painted "
        "delivered donated returned supplied forwarded assigned entrusted traded stored procured",
        # for whom
        "Smith Jones Brown Taylor Wilson Davies Evans Thomas Johnson Roberts Walker Wright "
        "Robinson Thompson Hughes Edwards Green Lewis Wood Harris Martin Jackson Clarke Turner "
        "Hill Cooper Ward Moore Morris King Watson Baker Harrison Morgan Patel Young Allen "
        "Mitchell Anderson Phillips Lee Bell Parker Davis Bennett Miller Cook Shaw",
        # how many
        " ".join(str(number) for number in range(21, 69)),
        # of what kind
        "large small heavy light tall short wide narrow thick thin round square flat curved smooth "
        "rough soft hard new old clean dusty shiny dull cheap costly rare common plain fancy "
        "solid hollow folded broken sturdy fragile modern antique simple ornate warm cold dry wet "
        "sharp blunt loose tight",
        # of what colour
        "red blue yellow orange purple pink black white grey beige violet indigo cyan magenta "
        "crimson scarlet maroon navy teal olive lime amber golden silver copper bronze ivory cream "
        "khaki ochre rust ruby emerald jade turquoise azure lilac mauve plum coral peach salmon "
        "tan sepia umber charcoal pearl mint",
        # from where
        "Oslo Paris Berlin Madrid Rome Vienna Prague Warsaw Athens Lisbon Dublin London Zurich "
        "Geneva Munich Milan Naples Turin Lyon Nice Porto Seville Malaga Bergen Malmo Turku Riga "
        "Vilnius Tallinn Minsk Kyiv Skopje Zagreb Split Cairo Tunis Lagos Accra Nairobi Lima Quito "
        "Bogota Havana Boston Denver Dallas Seattle Toronto",
        # what
        "lamps chairs tables clocks books bottles baskets boxes bells boots brushes buttons "
        "candles carpets coins combs cups curtains desks dolls doors drums flags flutes forks "
        "gloves guitars hammers hats jackets kettles keys kites knives ladders mirrors nails "
        "pencils pianos pillows plates ropes saws scarves shoes spoons vases wheels",
    )
)

SYSTEM = "Read the note :"
_FRAME = tuple(f"{SYSTEM} Ask about for everything from on ? Reply .".split())
WORDS: tuple[str, ...] = (*_FRAME, *(word for slot in SLOTS for word in slot))
"""Every word of every text, each once; a tokenizer numbers them in this order."""

FACT_WORDS = len(SLOTS) + 1
MAX_FACTS = 40
MAX_ANSWER_FACTS = 16

Split = Literal["evaluation", "calibration", "training"]
Kind = Literal["named", "since", "all"]
KINDS: tuple[Kind, ...] = get_args(Kind)

RESIDUES: dict[Split, tuple[int, ...]] = {
    "evaluation": (0,),
    "calibration": (1,),
    "training": (2, 3, 4, 5, 6, 7),
}
"""Modulo 8, of the sum of some words' numbers: it tells which split a prompt is of."""


@dataclass(frozen=True)
class Prompt:
    """A note with a question, and the true answer: the facts asked for, in the note's order."""

    kind: Kind
    facts: tuple[str, ...]
    question: str
    answer: str

    @property
    def body(self) -> str:
        """The prompt without the system prompt."""
        return f"{' '.join(self.facts)} {self.question}"

    @property
    def text(self) -> str:
        return f"{SYSTEM} {self.body}"


def prompts(split: Split, seed: int) -> Iterator[Prompt]:
    """An endless stream without repetitions, so the first n prompts never depend on n.

    Sizes are skewed like chat traffic: most notes are short, a few are forty facts long.
    """
    source = Random(f"{split} {seed}")
    seen: set[str] = set()
    while True:
        facts = skewed(source, MAX_FACTS)
        answered = skewed(source, min(facts, MAX_ANSWER_FACTS))
        fitting: list[Kind] = ["since"]
        if answered == 1:
            fitting.append("named")
        if answered == facts:
            fitting.append("all")
        prompt = make(source, split, source.choice(fitting), facts, answered)
        if prompt.text not in seen:
            seen.add(prompt.text)
            yield prompt


def make(source: Random, split: Split, kind: Kind, facts: int, answered: int) -> Prompt:
    """One prompt; `answered` must be 1 for "named", and `facts` for "all".

    The splits can't share a note: the first fact's word numbers, summed, tell the split.
    """
    columns = [source.sample(range(len(slot)), facts) for slot in SLOTS]
    residue = source.choice(RESIDUES[split])
    wrong = (residue - sum(column[0] for column in columns)) % 8
    items = columns[-1]
    moved = (items[0] + wrong) % len(SLOTS[-1])
    if moved in items:
        items[items.index(moved)] = items[0]
    items[0] = moved
    rows = list(zip(*columns, strict=True))
    sentences = tuple(
        " ".join([*(slot[number] for slot, number in zip(SLOTS, row, strict=True)), "."])
        for row in rows
    )
    last = facts if kind in ("since", "all") else source.randint(answered, facts)
    chosen = range(last - answered, last)
    first_name = SLOTS[0][rows[chosen[0]][0]]
    question = {
        "named": f"Ask about {first_name} ? Reply about",
        "since": f"Ask from {first_name} on ? Reply from",
        "all": "Ask for everything ? Reply note :",
    }[kind]
    return Prompt(kind, sentences, question, " ".join(sentences[number] for number in chosen))


def exact_facts(answer: str, truth: str) -> float:
    """Share of the true answer's facts that `answer` has word for word in the right place, 0 to 1.

    Facts beyond the true ones count as wrong: the share is of the longer of the two.
    """
    given, wanted = _facts(answer), _facts(truth)
    right = sum(one == other for one, other in zip(given, wanted, strict=False))
    return right / max(len(given), len(wanted), 1)


def skewed(source: Random, largest: int) -> int:
    """A size from 1 to `largest`, with weights falling like 1/(2 size + 1), in integers."""
    totals = list(accumulate(20_000 // (2 * size + 1) for size in range(1, largest + 1)))
    return 1 + bisect_right(totals, source.randrange(totals[-1]))


def _facts(text: str) -> list[str]:
    return [part.strip() for part in text.split(".") if part.strip()]
