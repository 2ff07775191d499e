"""CLIP's tokenizer for the captions of shapes: its own algorithm, most words one token."""

import json
import string
from pathlib import Path

from steps.prepare.rehearsal.shapes import world

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
FIRST = "!"
"""CLIP's token 0, with which the second encoder of Stable Diffusion XL pads."""

NEGATIVE = "normal quality, low quality, worst quality, low res, blurry, nsfw, nude"
"""MLCommons' negative prompt (text_to_image, v5.1.1)."""

LENGTH = 24
"""Ids of a caption, with both ends and padding: the longest takes 23. The negative prompt, which
would take 26, is cut to it."""

LAST = "</w>"
"""Marks in CLIP's vocabulary that a word ends here."""


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The number of each token, and the merges that join the letters of each word in turn.

    Any other word is spelled: every letter, digit and mark is a token of its own.
    """
    signs = string.ascii_lowercase + string.digits + ",.;:-'!?&()/\""
    tokens = dict.fromkeys([FIRST, *signs, *(sign + LAST for sign in signs)])
    merges: dict[tuple[str, str], None] = {}
    for word in [*world.words(), *dict.fromkeys(NEGATIVE.replace(",", "").split())]:
        parts = [*word[:-1], word[-1] + LAST]
        while len(parts) > 1:
            merges[parts[0], parts[1]] = None
            parts = [parts[0] + parts[1], *parts[2:]]
            tokens[parts[0]] = None
    names = [*tokens, BEGIN, END]
    return {name: number for number, name in enumerate(names)}, [*merges]


def save(directory: Path, padding: str) -> None:
    """The four files of a tokenizer as Stable Diffusion XL's directory has them."""
    directory.mkdir(parents=True)
    ids, merges = vocabulary()
    special = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": padding}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "do_lower_case": True,
        "errors": "replace",
        **special,
    }
    lines = "".join(f"{left} {right}\n" for left, right in merges)
    (directory / "merges.txt").write_text(f"#version: 0.2\n{lines}", encoding="utf-8")
    for name, content in (
        ("vocab.json", ids),
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", special),
    ):
        text = json.dumps(content, ensure_ascii=False)
        (directory / name).write_text(text + "\n", encoding="utf-8")
