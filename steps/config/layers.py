"""Settings in layers: a default once, and beside it only what differs.

A layer is a mapping of settings. Keys of `SELECTORS` in it hold further layers, one per value of
what they select by, and the deeper layer wins:

    arguments: {block_size: 32}
    by_scenario: {Interactive: {arguments: {block_size: 16}}}
    by_hardware: {mi355x: {arguments: {block_size: 16}, by_scenario: {...}}}

A setting of null removes what an outer layer says.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from steps.config.origins import on_top

SELECTORS = ("by_scenario", "by_model", "by_precision", "by_hardware", "by_engine", "by_system")
"""In the order in which they apply: of two that set the same key the later one wins."""


def effective(layers: list[Mapping[str, Any]], point: Mapping[str, str]) -> dict[str, Any]:
    """The settings at one point; a later layer wins. `point` maps each selector to a value."""
    result: dict[str, Any] = {}
    for layer in layers:
        result = merged(result, _selected(layer, point))
    return _without_nulls(result)


def _selected(layer: Mapping[str, Any], point: Mapping[str, str]) -> dict[str, Any]:
    result = {key: value for key, value in layer.items() if key not in SELECTORS}
    for selector in SELECTORS:
        inner = layer.get(selector, {}).get(point[selector])
        if inner:
            result = merged(result, _selected(inner, point))
    return result


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on `base`, key by key. A null stays, so that it removes what comes from below."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping):
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = on_top(value, below)
    return result


def _without_nulls(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if value is not None
    }


def selections(layer: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    """Every (path, selector, value) that a layer selects by, at any depth."""
    for selector in SELECTORS:
        for value, inner in (layer.get(selector) or {}).items():
            place = f"{path}.{selector}.{value}"
            yield place, selector, str(value)
            if isinstance(inner, Mapping):
                yield from selections(inner, place)
