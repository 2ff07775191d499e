"""Fields that a tool doesn't report, or in an unknown form: each is lost alone and named."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Value = TypeVar("Value")

NOTHING = frozenset(
    {
        *("", "-", "n/a", "na", "none", "null", "(null)", "unknown", "unknown!", "undefined"),
        *("not specified", "not supported", "not available", "not provided", "not applicable"),
        *("unsupported", "unknown error", "err!", "no dimm", "<bad index>", "<out of spec>"),
    }
)
"""What tools write, in any case and often in brackets, where they have no value."""

LARGEST = 1e16
"""Bytes of memory are the largest numbers here; a larger number isn't a measurement."""

UNIT = r"(?:W|[kKMGT]?i?B|[MG]?[Hh]z|%)?"


@dataclass(frozen=True)
class Loss:
    """`key`: the tool's name for it; `field`: what therefore can't be probed; `said`: the tool's
    value, None if absent. A line that belongs to no field has no key.
    """

    tool: str
    key: str
    field: str
    said: str | None

    def __str__(self) -> str:
        if self.said is None:
            return f"{self.tool} doesn't say {self.key}"
        if not self.key:
            return f"{self.tool} says {self.said!r:.160}"
        return f"{self.tool} says {self.said!r:.40} of {self.key}"


@dataclass
class Losses:
    """The losses of a tool's answer. A field that several records lack is one loss, counted."""

    tool: str = ""
    counts: dict[Loss, int] = field(default_factory=dict)

    def lose(self, key: str, what: str, said: Any = None) -> None:
        shown = None if text_or_none(said) is None else " ".join(str(said).split())
        loss = Loss(self.tool, key, what, shown)
        self.counts[loss] = self.counts.get(loss, 0) + 1

    def read(
        self,
        record: Mapping[str, Any],
        keys: str | tuple[str, ...],
        convert: Callable[[Any], Value],
        what: str,
    ) -> Value | None:
        """The value of the first key that is there; None, and a loss noted, without one.

        `convert` raises ValueError, TypeError, KeyError or OverflowError for a value it doesn't
        know.
        """
        names = (keys,) if isinstance(keys, str) else keys
        key = next((name for name in names if name in record), " or ".join(names))
        said = record.get(key)
        if text_or_none(said) is not None:
            try:
                return convert(said)
            except (ValueError, TypeError, KeyError, OverflowError):
                pass
        self.lose(key, what, said)
        return None


def text_or_none(value: Any) -> str | None:
    """A field's text; None for what tools write where they have no value."""
    text = " ".join(str(value).split()) if value is not None else ""
    return None if text.strip("[]").lower() in NOTHING else text


def words(value: Any) -> str:
    """A text as the tool prints it."""
    if not isinstance(value, str):
        raise TypeError
    return " ".join(value.split())


def number(value: Any) -> float:
    """A number above 0: by itself, in a text, with a unit behind it, or as {"value": ...}."""
    if isinstance(value, Mapping):
        value = value["value"]
    if isinstance(value, bool):
        raise TypeError
    match = re.fullmatch(rf"\+?(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?) ?{UNIT}", str(value).strip())
    if not match or not 0 < float(match[1]) < LARGEST:
        raise ValueError
    return float(match[1])


def whole(value: Any) -> int:
    """The same, without a fraction."""
    found = number(value)
    if found != round(found):
        raise ValueError
    return round(found)


def natural(value: Any) -> int:
    """The same, or 0."""
    return 0 if re.fullmatch(rf"0 ?{UNIT}", str(value).strip()) else whole(value)
