"""Where a value comes from: values that carry the path they were written at, and the files.

Interpolations and layers hand values on as they are, so a value that knows its path still knows it
where it arrives. Text that is put together of several values doesn't.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TYPED = "command line"
"""The file of what was typed."""


@dataclass(frozen=True)
class Origin:
    """`path`: in the composed configuration, or an override as it was typed. `value`: what it says.

    `file`: None: that which Files names for the path. `over`: what it overrode.
    """

    path: str
    value: Any
    file: str | None = None
    over: "Origin | None" = None


class Traced:
    """A value with its origin. It is equal to the plain one and writes the same JSON."""

    origin: Origin

    def __deepcopy__(self, memo: Any) -> "Traced":
        return self


class _Text(Traced, str):
    pass


class _Whole(Traced, int):
    pass


class _Number(Traced, float):
    pass


class _Truth(Traced, int):
    """Nothing can be made of bool."""

    def __str__(self) -> str:
        return str(bool(self))


def traced(value: Any, origin: Origin) -> Any:
    """The value with its origin; what can't have one (null, a list of nothing) as it is."""
    kind = {bool: _Truth, int: _Whole, float: _Number, str: _Text}.get(type(value))
    if kind is None:
        return value
    made = kind(value)
    made.origin = origin
    return made


def on_top(value: Any, below: Any) -> Any:
    """`value`, which overrides `below`: it remembers it."""
    if not isinstance(value, Traced) or not isinstance(below, Traced):
        return value
    return traced(plain(value), _chained(value.origin, below.origin))


def _chained(upper: Origin, lower: Origin) -> Origin:
    over = lower if upper.over is None else _chained(upper.over, lower)
    return Origin(upper.path, upper.value, upper.file, over)


def plain(value: Any) -> Any:
    """The value without its origin, at any depth."""
    if isinstance(value, _Truth):
        return bool(value)
    if isinstance(value, _Text):
        return str(value)
    if isinstance(value, _Whole):
        return int(value)
    if isinstance(value, _Number):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def origin_of(value: Any) -> Origin | None:
    """The value's origin; a list's is that of its first element that has one."""
    if isinstance(value, Traced):
        return value.origin
    if isinstance(value, list):
        return next((found for found in map(origin_of, value) if found), None)
    return None


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every (path, value) below; a list is a value, and so is a mapping of nothing."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


@dataclass(frozen=True)
class Files:
    """The files that a configuration was composed from, in the order in which they apply.

    `order`: name of the file, and where it is put. `said`: the values of each file.
    `typed`: paths of the overrides and how they were typed. `site`: the system that `--site` gave.
    """

    order: Sequence[tuple[str, str]]
    said: Mapping[str, Mapping[str, Any]]
    typed: Mapping[str, str] = field(default_factory=dict)
    site: str | None = None

    def name(self, file: str) -> str:
        """As a user finds it."""
        if file == TYPED:
            return file
        return f"--site {self.site}.yaml" if file == f"system/{self.site}" else f"conf/{file}.yaml"

    def of(self, path: str) -> list[tuple[str, Any]]:
        """Every file that sets a path, with the value; the last one holds."""
        found = []
        for name, package in self.order:
            below = path[len(package) + 1 :] if package else path
            if (not package or path.startswith(f"{package}.")) and below in self.said[name]:
                found.append((name, self.said[name][below]))
        if path in self.typed:
            found.append((TYPED, self.typed[path]))
        return found
