"""Where the values of a plan come from, as they are stored with it.

Read without anything that makes a plan, so that `show` answers at once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steps.config.composed import ComposedCell, Row


@dataclass(frozen=True)
class Said:
    """A file or an override that says a value, and the path that it says it at."""

    path: str
    file: str
    value: Any


@dataclass(frozen=True)
class Shown:
    """One setting of a cell: its value, who says it, and what that overrode, the last first."""

    key: str
    value: Any
    source: Said
    over: tuple[Said, ...]


def written(cells: "Sequence[ComposedCell]") -> str:
    """JSON of all cells; what several have in common stands once."""
    known: dict[str, int] = {}
    lines = [[known.setdefault(_line(row), len(known)) for row in cell.rows] for cell in cells]
    keys = [cell.key for cell in cells]
    shown = dict(zip(keys, lines, strict=True))
    rows = ",\n".join(known)
    return f'{{"cells":{json.dumps(shown)},"rows":[{rows}]}}\n'


def _line(row: "Row") -> str:
    sources = [[said.path, said.file, said.value] for said in (row.source, *row.over)]
    return json.dumps([row.key, row.value, sources], ensure_ascii=False)


def read(text: str) -> Mapping[str, tuple[Shown, ...]]:
    """The settings of each cell, by the cell's key."""
    found = json.loads(text)
    rows = [_shown(*row) for row in found["rows"]]
    return {key: tuple(rows[at] for at in lines) for key, lines in found["cells"].items()}


def _shown(key: str, value: Any, sources: Sequence[Sequence[Any]]) -> Shown:
    own, *over = (Said(*one) for one in sources)
    return Shown(key, value, own, tuple(over))
