"""Files of Hydra's compositions, and values of OmegaConf with their origins."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf, ValueNode

from steps.config.origins import Files, Origin, leaves, plain, traced


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


class Reader:
    """Knows which files of `conf/` a composition had, and what each says."""

    def __init__(self) -> None:
        self._said: dict[str, Mapping[str, Any]] = {}
        self._order: list[tuple[str, str]] = []

    def read(self, defaults: Sequence[Any], repository: Any) -> None:
        """What the next composition is of: Hydra's list of defaults."""
        self._order = []
        for default in defaults:
            path = default.config_path
            if path is None or path.startswith("hydra/"):
                continue
            found = repository.load_config(path)
            package = default.package
            if package is None:
                package = found.header["package"] or ""
            self._order.append((path, package))
            if path not in self._said:
                raw = OmegaConf.to_container(found.config, resolve=False)
                self._said[path] = dict(leaves(raw, ""))

    def files(self, typed: Mapping[str, str], site: str | None) -> Files:
        """Those of the last composition."""
        return Files(tuple(self._order), self._said, typed, site)


@contextmanager
def reading() -> Iterator[Reader]:
    """Within Hydra's initialization: what knows its files."""
    reader = Reader()
    loader: Any = GlobalHydra.instance().config_loader()
    compose = loader._compose_config_from_defaults_list

    def composed(defaults: Any, repo: Any) -> Any:
        reader.read(defaults, repo)
        return compose(defaults=defaults, repo=repo)

    loader._compose_config_from_defaults_list = composed
    yield reader
