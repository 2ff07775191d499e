"""The table of what a dress rehearsal replaces: `make reference` writes it, a test compares it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steps import ROOT
from steps.base.yaml_text import mapping_of

PAGE = ROOT / "docs/explanation/dress-rehearsal.md"
BEGIN, END = "<!-- replaced -->\n", "<!-- end of replaced -->\n"


def page() -> str:
    """The page with today's table."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


def table() -> str:
    lines = ["| where | what | by | why |", "|---|---|---|---|"]
    for where, one in _entries():
        said = [one.get(key, "the same") for key in ("what", "by", "why")]
        lines.append(f"| {' | '.join((where, *said))} |")
    return "\n".join(lines) + "\n"


def _entries() -> Iterator[tuple[str, dict[str, Any]]]:
    home = ROOT / "conf/scale"
    for path in (home / "dress.yaml", *sorted(home.glob("*/dress/*.yaml"))):
        found = mapping_of(path).get("scale", {}).get("replaced", {})  # on what it builds on
        where = "every cell" if path.parent == home else _name(path)
        yield from ((where, one) for one in found.values())


def _name(path: Path) -> str:
    return f"`{path.stem}`"
