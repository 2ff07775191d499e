"""Warnings of Snakemake in what `./reproduce` printed.

Snakemake marks them by a colour, and only on a terminal. So they are told by their words, which are
read from its source.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml

from tests.ending import LIST

PYTHONS = re.compile(r"\b\w*Warning: .*")
"""A warning of Python, as the interpreter prints it."""

SHORTEST = 12
"""Letters; shorter pieces of a sentence stand in others too."""


def found(text: str) -> list[str]:
    """Those that tests/reviewed.yaml doesn't list."""
    seen = [words for words in sentences() if words in text]
    return [words for words in (*seen, *PYTHONS.findall(text)) if words not in _listed()]


@cache
def sentences() -> frozenset[str]:
    """The longest fixed piece of each."""
    snakemake = find_spec("snakemake")
    assert snakemake is not None and snakemake.origin is not None
    home = Path(snakemake.origin).parent
    texts = (path.read_text(encoding="utf-8") for path in home.rglob("*.py"))
    return frozenset(
        words for text in texts if "logger.warning(" in text for words in _sentences(text)
    )


def _sentences(source: str) -> Iterator[str]:
    for call in ast.walk(ast.parse(source)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        if call.func.attr == "warning" and call.args:
            longest = max(_pieces(call.args[0]), key=len, default="")
            if len(longest) >= SHORTEST:
                yield longest


def _pieces(said: ast.expr) -> Iterator[str]:
    for part in ast.walk(said):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield from (piece.strip() for piece in re.split(r"\{.*?\}|\n", part.value))


@cache
def _listed() -> tuple[str, ...]:
    return tuple(yaml.safe_load(LIST.read_text(encoding="utf-8"))["snakemake"])
