"""What composition makes: cells with their values and where each value comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steps.config.origins import Files, Origin
from steps.config.overrides import Typed


@dataclass(frozen=True)
class Source:
    """A value that a file or an override says. `path`: where in the composed configuration."""

    path: str
    file: str
    value: Any


@dataclass(frozen=True)
class Row:
    """One line of `show`: a setting by its short name, its source, and what that overrode, the
    last first."""

    key: str
    value: Any
    source: Source
    over: tuple[Source, ...]


@dataclass(frozen=True)
class ComposedCell:
    """One cell: `values` by group, `rows` for `show`.

    `names`: of its axes, hardware and model. `read`: paths of values that its jobs certainly read.
    `files`: what it was composed from.
    """

    key: str
    names: frozenset[str]
    values: Mapping[str, Any]
    rows: tuple[Row, ...]
    read: frozenset[str]
    files: Files


@dataclass(frozen=True)
class Composition:
    """An experiment's name, its cells in order, and what was typed."""

    experiment: str
    cells: tuple[ComposedCell, ...]
    typed: Typed


def row(key: str, value: Any, origin: Origin, files: Files) -> Row:
    """The value's own file, then the files below it that say the same path, then what it overrode
    from other paths."""
    sources: list[Source] = []
    found: Origin | None = origin
    while found is not None:
        if found.file is not None:
            sources.append(Source(found.path, found.file, found.value))
        for file, said in reversed(files.of(found.path)):
            sources.append(Source(found.path, files.name(file), said))
        found = found.over
    if not sources:
        sources = [Source(origin.path, "", value)]
    return Row(key, value, sources[0], tuple(sources[1:]))
