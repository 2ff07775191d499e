"""The top layer: puts the settings that `set.` names into a composed configuration."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from steps.base.arguments import nearest
from steps.base.errors import UserError
from steps.config.origins import TYPED, Origin, on_top, traced
from steps.config.overrides import SET, Setting, holding
from steps.config.view import FIXED, LAYERED, NAMES, WRITTEN, place, require_known, section

TOP = SET.rstrip(".")
"""The key of the composed configuration whose parts are the last layers."""

FLAGS = {"allow_objects": True}


class Placing:
    """Settings of the top layer; `narrowing`: the names of axes that there are."""

    def __init__(self, settings: Sequence[Setting], narrowing: Sequence[str]) -> None:
        self._settings = settings
        self._held: set[Setting] = set()
        for one in settings:
            if not section(one.key, one.text):
                first = one.key.partition(".")[0]
                hint = nearest(first, [*NAMES, *narrowing])
                raise UserError(
                    f"{one.text}: {first!r} is neither a setting nor the name of an axis{hint}; "
                    f"settings are {', '.join(name for name in NAMES if name not in FIXED)}, "
                    "arguments of the engine engine.NAME"
                )

    @contextmanager
    def placed(self, config: DictConfig, names: frozenset[str]) -> Iterator[Mapping[str, Setting]]:
        """Within it the configuration has what applies at a cell of these names."""
        held = holding(self._settings, names)
        self._held |= {*held.values()}
        layers: dict[str, Any] = {}
        undo: list[tuple[Any, str, Any]] = []
        try:
            for one in held.values():
                if section(one.key, one.text) in LAYERED:
                    _put(layers, place(one.key).split("."), _said(one))
                else:
                    undo.append(_replace(config, one))
            if layers:
                with open_dict(config):
                    config[TOP] = OmegaConf.create(layers, flags=FLAGS)
            yield held
        finally:
            for parent, key, before in reversed(undo):
                parent._content[key] = before
            if layers:
                with open_dict(config):
                    config.pop(TOP, None)

    def require_all_held(self, cells: Sequence[frozenset[str]]) -> None:
        """Raises UserError for a setting that no cell has."""
        for one in self._settings:
            if one in self._held:
                continue
            if any(names.issuperset(one.names) for names in cells):
                winners = sorted(other.text for other in self._held if other.key == one.key)
                raise UserError(
                    f"{one.text} has no effect: {', '.join(winners)} says the same more narrowly "
                    "for every cell; leave it out"
                )
            missing = [name for name in one.names if not any(name in names for names in cells)]
            there = sorted(frozenset().union(*cells))
            raise UserError(
                f"{one.text} applies to no cell: none of this command's is of "
                f"{' and '.join(missing or one.names)}; theirs are {', '.join(there)}"
            )


def require_settings(held: Mapping[str, Setting], where: str, values: Mapping[str, Any]) -> None:
    """Raises UserError for a setting that this cell's configuration doesn't know."""
    engine = values.get("effective", {}).get("engine") or {}
    for one in held.values():
        require_known(one.key, one.text, where, str(engine.get("kind")))


def _said(one: Setting) -> Any:
    origin = Origin(one.place, one.value, TYPED)
    if isinstance(one.value, list):
        return [traced(inner, origin) for inner in one.value]
    return traced(one.value, origin)


def _put(layers: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        layers = layers.setdefault(key, {})
    layers[keys[-1]] = value


def _replace(config: DictConfig, one: Setting) -> tuple[Any, str, Any]:
    """Writes it in place of what is there; returns how that is undone."""
    name, _, below = one.key.partition(".")
    path = WRITTEN.get(one.key) or ".".join(filter(None, (NAMES[name], below)))
    above, _, key = path.rpartition(".")
    parent: Any = OmegaConf.select(config, above)
    there = parent._content if isinstance(parent, DictConfig) else None
    if not isinstance(there, dict) or there.get(key) is None:
        near = nearest(key, map(str, there)) if isinstance(there, dict) else ""
        raise UserError(
            f"{one.text} applies to nothing: this cell has no {one.key}{near}; narrow it, or "
            "choose what has one"
        )
    below_it = OmegaConf.select(config, path)
    value = on_top(_said(one), below_it)
    node: Any = OmegaConf.create({key: value}, flags=FLAGS)._get_node(key)
    node._set_parent(parent)
    before = there[key]
    there[key] = node
    return parent, key, before
