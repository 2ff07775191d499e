"""One token per word: the rehearsal benchmarks' tokenizers, as files that transformers reads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from steps.prepare.rehearsal.notes import WORDS

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
UNKNOWN, BEGIN, END, PAD = range(4)
"""Begin and end have Llama 2's ids: MLCommons' TEST06 looks for 2 unless told otherwise."""

LINE_END = "\n"
"""A word of programs."""


@dataclass(frozen=True)
class Vocabulary:
    """The words of a benchmark's texts, each once: a word's number is its place after SPECIAL."""

    words: tuple[str, ...]

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        return (*SPECIAL, *self.words)

    @cached_property
    def ids(self) -> Mapping[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    def encode(self, text: str) -> list[int]:
        """Token ids of words with a blank between them, without special tokens; unknown ones 0."""
        return [self.ids.get(word, UNKNOWN) for word in text.split(" ") if word]

    def decode(self, ids: Sequence[int]) -> str:
        """Words of the ids, special tokens left out."""
        return " ".join(self.tokens[number] for number in ids if number >= len(SPECIAL))


NOTES = Vocabulary(WORDS)


def save(directory: Path, vocabulary: Vocabulary = NOTES) -> None:
    """Write tokenizer.json and tokenizer_config.json; `AutoTokenizer` loads them offline."""
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special_tokens({token: vocabulary.ids[token] for token in SPECIAL}),
        "normalizer": None,
        "pre_tokenizer": _splitting(vocabulary),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": SPECIAL[BEGIN], "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": SPECIAL[BEGIN], "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {
                SPECIAL[BEGIN]: {
                    "id": SPECIAL[BEGIN],
                    "ids": [BEGIN],
                    "tokens": [SPECIAL[BEGIN]],
                }
            },
        },
        # Without a decoder, tokens are joined by blanks: exactly what `encode` split.
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": dict(vocabulary.ids),
            "unk_token": SPECIAL[UNKNOWN],
        },
    }
    write(directory, content, SPECIAL)


def special_tokens(ids: Mapping[str, int]) -> list[dict[str, object]]:
    """Tokens that stand for no word, as tokenizer.json lists them."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": number, "content": token, "special": True, **flags} for token, number in ids.items()
    ]


def write(directory: Path, content: Mapping[str, object], special: Sequence[str]) -> None:
    """`content`: of tokenizer.json. `special`: of unknown words, begin, end and padding."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": special[UNKNOWN],
        "bos_token": special[BEGIN],
        "eos_token": special[END],
        "pad_token": special[PAD],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
    }
    for name, written in (("tokenizer.json", content), ("tokenizer_config.json", config)):
        (directory / name).write_text(json.dumps(written, indent=0) + "\n", encoding="utf-8")


def _splitting(vocabulary: Vocabulary) -> dict[str, object]:
    """At white space, or at blanks alone where a line's end is a word."""
    if LINE_END not in vocabulary.words:
        return {"type": "WhitespaceSplit"}
    return {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}
