"""One token per word: the rehearsal benchmark's tokenizer, as files that transformers reads."""

import json
from pathlib import Path

from steps.prepare.rehearsal.notes import WORDS

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
UNKNOWN, BEGIN, END, PAD = range(4)
"""Begin and end have Llama 2's ids: MLCommons' TEST06 looks for 2 unless told otherwise."""

TOKENS: tuple[str, ...] = (*SPECIAL, *WORDS)
_IDS = {token: number for number, token in enumerate(TOKENS)}


def encode(text: str) -> list[int]:
    """Token ids of blank-separated words, without special tokens; unknown words become 0."""
    return [_IDS.get(word, UNKNOWN) for word in text.split()]


def decode(ids: list[int]) -> str:
    """Words of the ids, special tokens left out."""
    return " ".join(TOKENS[number] for number in ids if number >= len(SPECIAL))


def save(directory: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json; `AutoTokenizer` loads them offline."""
    added = [
        {
            "id": number,
            "content": token,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for number, token in enumerate(SPECIAL)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
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
        "model": {"type": "WordLevel", "vocab": _IDS, "unk_token": SPECIAL[UNKNOWN]},
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": SPECIAL[UNKNOWN],
        "bos_token": SPECIAL[BEGIN],
        "eos_token": SPECIAL[END],
        "pad_token": SPECIAL[PAD],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
    }
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        (directory / name).write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")
