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
        lines.append(f"| {' | '.join((where, *(one[key] for key in ('what', 'by', 'why'))))} |")
    return "\n".join(lines) + "\n"


def _entries() -> Iterator[tuple[str, dict[str, Any]]]:
    """What each file says anew; one that changes only the settings of an entry says nothing."""
    home = ROOT / "conf/scale"
    scales = (home / "dress.yaml", home / "dress-v0.yaml")
    for path in (*scales, *sorted(home.glob("*/dress/*.yaml"))):
        where = f"every cell, `scale={path.stem}`" if path.parent == home else f"`{path.stem}`"
        whole = _whole(path)
        for name, one in _own(path).items():
            if one.keys() - {"settings"}:
                yield where, whole[name]


def _own(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = mapping_of(path).get("scale", {}).get("replaced", {})
    return found


def _whole(path: Path) -> dict[str, dict[str, Any]]:
    """With what the files that it builds on say of the same."""
    found: dict[str, dict[str, Any]] = {}
    for base in mapping_of(path).get("defaults", []):
        if isinstance(base, str) and base.startswith("/"):
            found |= _whole(ROOT / f"conf{base}.yaml")
    return found | {name: found.get(name, {}) | one for name, one in _own(path).items()}
