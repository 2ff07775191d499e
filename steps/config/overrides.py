"""What is typed: values of the axes, settings of the top layer (`set.`), and Hydra's overrides."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.types import Glob, Override, OverrideType, RangeSweep
from hydra.errors import HydraException

from steps.base.arguments import nearest
from steps.base.errors import UserError
from steps.config.axes import AXES
from steps.config.groups import choices, models
from steps.config.merging import parsed
from steps.config.origins import leaves, plain

ROW = "row"
"""`row=8xMI300X_2xEPYC_9575F/llama2-70b-99/Server`: the cell that becomes this published row."""

SET = "set."
"""What an override of the top layer begins with."""

NARROWING = ("scenario", "system", "hardware", "benchmark", "compression", "precision")
"""Groups whose names, and models, narrow a setting of the top layer: `set.Server.target_qps=30`."""

VALUES = 1000
"""An axis has no more; conf/ has some dozens of any."""

TEXTS = ("engine.environment.", "fields.")
"""Settings that are texts, whatever they look like: `set.engine.environment.VLLM_USE_V1=1`."""


@dataclass(frozen=True, eq=False)
class Setting:
    """One value of the top layer: where it holds, what it sets, and the words that said so."""

    names: tuple[str, ...]
    key: str
    value: Any
    text: str

    @property
    def place(self) -> str:
        return SET + ".".join((*self.names, self.key))


@dataclass(frozen=True)
class Leaf:
    """One value that Hydra is asked to set. `value` of a deleted key: None."""

    path: str
    value: Any
    text: str
    deleted: bool = False


@dataclass(frozen=True)
class Typed:
    """`fixed`: overrides for Hydra, and `set_by_them`: their values. `axes`: the named values,
    `patterns`: those whose values fit a pattern."""

    fixed: tuple[str, ...]
    set_by_them: tuple[Leaf, ...]
    axes: Mapping[str, list[str]]
    rows: tuple[str, ...]
    settings: tuple[Setting, ...]
    patterns: frozenset[str]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key_of(text) for text in self.fixed)


def read(conf: Path, overrides: Sequence[str]) -> Typed:
    """Raises UserError for what can't be read, is said twice, or means one value and names several.

    `conf`: with the site's own system in it.
    """
    fixed: list[str] = []
    found: list[Leaf] = []
    axes: dict[str, list[str]] = {}
    settings: list[Setting] = []
    seen: dict[str, str] = {}
    patterns: set[str] = set()
    for text in overrides:
        if text.lstrip("+~").startswith(SET):
            settings += _settings(conf, text)
            continue
        override = _parsed(text)
        key = override.key_or_group
        if key in seen:
            joined = f"{key}=A,B" if key in (*AXES, ROW) else "the one that you mean"
            raise UserError(f"{key} is given twice, {seen[key]!r} and {text!r}; give {joined}")
        seen[key] = text
        if key in (*AXES, ROW):
            axes[key] = _values(conf, override, text)
            patterns |= {key} if isinstance(override.value(), Glob) else set()
            continue
        _refuse_sweep(override)
        if (conf / key).is_dir():
            _check_group(conf, override, text)
        else:
            found += _leaves(override, text)
        fixed.append(text)
    rows = tuple(axes.pop(ROW, []))
    _refuse_covered(found)
    return Typed(tuple(fixed), tuple(found), axes, rows, tuple(settings), frozenset(patterns))


def key_of(text: str) -> str:
    return str(_parsed(text).key_or_group)


def _parsed(text: str) -> Override:
    try:
        override = parsed(text)
    except HydraException as error:
        raise UserError(f"override {text!r} is not KEY=VALUE as Hydra reads it") from error
    if not override.key_or_group:
        raise UserError(f"override {text!r} names no key; write KEY=VALUE")
    return override


def _refuse_sweep(override: Override) -> None:
    if override.is_sweep_override():
        raise UserError(
            f"{override.key_or_group} can't be swept; only {', '.join(AXES)} take lists: "
            "run once per value instead; a value that has a comma is quoted twice, as "
            f"\"{override.key_or_group}='a, b'\""
        )


def _leaves(override: Override, text: str) -> list[Leaf]:
    key = override.key_or_group
    if override.is_delete():
        return [Leaf(key, None, text, deleted=True)]
    value = plain(override.value())
    found = [Leaf(path, inner, text) for path, inner in leaves(value, key)]
    if any(leaf.value == {} for leaf in found):
        raise UserError(f"{text} changes nothing: {{}} adds no key to what is there")
    return found


def _refuse_covered(found: Sequence[Leaf]) -> None:
    """Raises UserError for an override of which later ones set all that it sets."""
    for text in dict.fromkeys(leaf.text for leaf in found):
        own = [leaf for leaf in found if leaf.text == text]
        later = found[found.index(own[-1]) + 1 :]
        over = [
            next((one for one in later if f"{leaf.path}.".startswith(f"{one.path}.")), None)
            for leaf in own
        ]
        if all(over) and over[0] is not None:
            raise UserError(
                f"{text} has no effect: {over[0].text}, after it, sets the same; leave one out"
            )


# ---- choices ------------------------------------------------------------------------------------


def _values(conf: Path, override: Override, text: str) -> list[str]:
    """The values of an axis, or rows: one, a list or Hydra's sweep of them."""
    axis = override.key_or_group
    if override.type is not OverrideType.CHANGE or override.package is not None:
        raise UserError(f"{text!r} is no choice of {axis}; write {axis}=NAME or {axis}=NAME,NAME")
    value = override.value()
    if isinstance(value, RangeSweep):
        _check_range(axis, value)
    if isinstance(value, Glob):
        names = cast(list[str], value.filter(choices(conf, axis)))
        if not names:
            raise UserError(f"{text!r} fits no {axis}; there are {', '.join(choices(conf, axis))}")
        return names
    if override.is_interval_sweep():
        raise UserError(f"{text!r} names no {axis}; write {axis}=NAME or {axis}=NAME,NAME")
    if override.is_sweep_override():
        found = list(override.sweep_string_iterator())
    else:
        found = [str(one) for one in value] if isinstance(value, list) else [str(value)]
    if isinstance(value, dict) or not all(found) or value is None:
        raise UserError(f"{text!r} names no {axis}; write {axis}=NAME or {axis}=NAME,NAME")
    if axis != ROW:
        for name in found:
            _check_name(conf, axis, name)
    return list(dict.fromkeys(found))


def _check_name(conf: Path, group: str, name: str) -> None:
    known = choices(conf, group)
    if name not in known:
        raise UserError(
            f"there is no {group} {name!r}{nearest(name, known)}; there are {', '.join(known)}"
        )


def _check_group(conf: Path, override: Override, text: str) -> None:
    """A group takes one name that there is."""
    group, value = override.key_or_group, override.value()
    if override.package is not None:
        raise UserError(f"{text!r} has no effect; write {group}=NAME, without @")
    if override.is_delete():
        return
    if value is not None and (not isinstance(value, str | int | float) or value == ""):
        raise UserError(f"{text!r}: {group} takes one name, as {group}=NAME")
    if value is not None:
        _check_name(conf, group, str(value))


def _check_range(axis: str, value: RangeSweep) -> None:
    """Raises UserError for one that counts for ever, or for as good as ever."""
    start, stop, step = (float(part or 0) for part in (value.start, value.stop, value.step))
    if not step or not math.isfinite(start + stop + step) or (stop - start) / step > VALUES:
        raise UserError(f"{axis} has more than {VALUES} values in its range; name those you mean")


# ---- the top layer ------------------------------------------------------------------------------


def _settings(conf: Path, text: str) -> list[Setting]:
    if text.startswith("~"):
        raise UserError(f"{text!r}: to take a setting out, write {text[1:].split('=')[0]}=null")
    place, equals, said = text.lstrip("+").partition("=")
    if not equals:
        raise UserError(f"{text!r} has no value; write {place}=VALUE")
    names, key = _narrowed(conf, place.removeprefix(SET))
    if not key or not all(key.split(".")):
        raise UserError(f"{text!r} sets nothing; write {SET}target_qps=30 or {SET}engine.NAME=64")
    override = _parsed(f"value={said}")
    if override.is_sweep_override():
        raise UserError(
            f"{place} takes one value, and {said!r} is several; run once per value, or set each "
            f"where it holds, as {SET}Server.{key}=VALUE"
        )
    found = []
    for path, value in leaves(plain(override.value()), key):
        if value == {}:
            raise UserError(f"{text} changes nothing: {{}} adds no key to what is there")
        if path.startswith(TEXTS) and isinstance(value, bool | int | float):
            value = said if path == key else str(value)
        found.append(Setting(names, path, value, text))
    return found


def narrowing(conf: Path) -> list[str]:
    """Names of axes, hardware and models."""
    found = {name for group in NARROWING for name in choices(conf, group)}
    return sorted(found | set(models(conf).values()))


def _narrowed(conf: Path, place: str) -> tuple[tuple[str, ...], str]:
    """Names of axes that a place begins with, and the key behind them. Names may have dots."""
    known = narrowing(conf)
    names: list[str] = []
    while fitting := [name for name in known if place.startswith(f"{name}.")]:
        names.append(max(fitting, key=len))
        place = place[len(names[-1]) + 1 :]
    return tuple(names), place


def holding(settings: Sequence[Setting], names: frozenset[str]) -> dict[str, Setting]:
    """What applies at a cell that has these names, by key: of several the one that names most.

    Raises UserError if two name as much.
    """
    found: dict[str, Setting] = {}
    for one in settings:
        if not names.issuperset(one.names):
            continue
        other = found.get(one.key)
        if other is not None and len(set(other.names)) == len(set(one.names)):
            both = f"{other.text} and {one.text}"
            if set(other.names) == set(one.names):
                raise UserError(f"{both} set the same twice; leave one out")
            raise UserError(
                f"{both} both hold at {' '.join(sorted(names))}, and neither says more of it; "
                f"name both, as {SET}{'.'.join((*other.names, *one.names))}.{one.key}=VALUE"
            )
        if other is None or len(set(other.names)) < len(set(one.names)):
            found[one.key] = one
    for key, one in found.items():
        for upper, other in found.items():
            if key.startswith(f"{upper}."):
                raise UserError(f"{other.text} and {one.text} set the same; leave one out")
    return found
