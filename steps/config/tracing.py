"""Values of OmegaConf with their origins."""

import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, ValueNode

from steps.config.origins import Origin, plain, traced


def trace(node: Any, path: str = "") -> None:
    """Give every literal value of a composed configuration its path, in place."""
    for place, child in _children(node, path):
        if isinstance(child, DictConfig | ListConfig):
            trace(child, place)
        elif not isinstance(child._val, str) or "${" not in child._val:
            child._val = traced(child._val, Origin(place, child._val))


def _children(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Nodes as they are written, none of one that is null or an interpolation as a whole.

    Those of a list have the list's path: it is overridden as a whole.
    """
    content = node._content
    if isinstance(content, list):
        yield from ((path, child) for child in content)
    elif isinstance(content, dict):
        yield from ((f"{path}.{key}" if path else str(key), content[key]) for key in content)


REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.]+)\}")


def written(config: DictConfig, path: str, value: Any) -> Origin:
    """Where a value without an origin is written: null, or text that is put together."""
    while True:
        above, _, key = path.rpartition(".")
        parent: Any = OmegaConf.select(config, above) if above else config
        node = parent._get_node(key) if isinstance(parent, DictConfig) else None
        text = node._value() if isinstance(node, ValueNode) else None
        found = REFERENCE.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            return Origin(path, plain(value))
        path = found[1]
