"""One composition: Hydra says which files apply, in order, and they are merged as plain values.

OmegaConf merges nodes: it makes one of every value of every file, checks it and copies it, for
every composition. That was two thirds of the time of a plan. A merge that is more than putting
mappings into each other is left to it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from steps.base.errors import UserError
from steps.base.yaml_text import mapping_in, text_at
from steps.config.origins import leaves
from steps.config.remembered import TEXTS

PRIMARY = "config"
"""The file of `conf/` that every composition starts from."""

FILES = 1024
"""So many are remembered in a process: several times what conf/ has."""

Place = tuple[str, str]
"""The name of a file without its ending, and where in the configuration it is put."""


class _NotPlain(Exception):
    """A merge that OmegaConf has to do."""


@lru_cache(TEXTS)
def parsed(text: str) -> Override:
    """An override as Hydra reads it, which nothing changes. Raises HydraException."""
    return OverridesParser.create().parse_override(text)


# ---- files ------------------------------------------------------------------------------------


@lru_cache(FILES)
def _content(
    path: Path, written: tuple[int, int, int]
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """What a file says, interpolations as they are written, and its header; nothing changes it."""
    text = text_at(path)
    header: dict[str, str | None] = ConfigSource._get_header_dict(text[:512])
    with suppress(UserError):
        return _keys(text), header
    return mapping_in(text, str(path), or_nothing=True), header  # says in which file it can't be


@lru_cache(FILES)
def _keys(text: str) -> dict[str, Any]:
    """A copy of a file, as each checkout has one, isn't parsed again."""
    return mapping_in(text, "a file", or_nothing=True)


class Repository(CachingConfigRepository):
    """Hydra's files, each read once a process: for the list of defaults, as plain values too."""

    def __init__(self, conf: Path, delegate: Any) -> None:
        super().__init__(delegate)
        self._conf = conf
        self._plain: dict[str, dict[str, Any] | None] = {}

    def plain(self, name: str) -> dict[str, Any]:
        """A file's content without its list of defaults. Raises _NotPlain for one that isn't of
        `conf/`."""
        self.load_config(name)
        found = self._plain.get(name)
        if found is None:
            raise _NotPlain
        return found

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self._plain:
            self._plain[config_path] = self._read(config_path)
        found: ConfigResult | None = self.cache.get(config_path)
        return found

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self._conf / f"{name.removesuffix('.yaml')}.yaml"
        try:
            status = path.stat()
        except OSError:  # another source has it, or Hydra says that none has
            self.cache[name] = self.delegate.load_config(config_path=name)
            return None
        content, header = _content(path, (status.st_ino, status.st_size, status.st_mtime_ns))
        # Hydra only asks whether there is anything in it.
        keys = {key: None for key in content if key != "defaults"}
        found = ConfigResult(
            provider="main", path=str(path), config=OmegaConf.create(keys), header=header
        )
        delegate: Any = self.delegate
        given = OmegaConf.create({"defaults": content.get("defaults", [])})
        defaults = delegate._extract_defaults_list(name, given)
        found.defaults_list = delegate._create_defaults_list(name, defaults)
        self.cache[name] = found
        return {key: value for key, value in content.items() if key != "defaults"}


# ---- merging ----------------------------------------------------------------------------------


class Composer:
    """Composes overrides within Hydra's initialization, and knows which files each one had.

    `said`: the values of every file read so far, by path.
    """

    def __init__(self, conf: Path) -> None:
        self._loader = cast("Any", GlobalHydra.instance().config_loader())
        self._loader.ensure_main_config_source_available()
        self._repository = Repository(conf, self._loader.repository)
        self.said: dict[str, Mapping[str, Any]] = {}

    def compose(self, overrides: Sequence[str]) -> tuple[DictConfig, tuple[Place, ...]]:
        """The configuration, and its files in the order in which they apply. Raises what Hydra and
        OmegaConf raise."""
        given = [parsed(text) for text in overrides]
        self._loader.validate_sweep_overrides_legal(given, RunMode.RUN, from_shell=False)
        found = create_defaults_list(
            repo=self._repository,
            config_name=PRIMARY,
            overrides_list=given,
            prepend_hydra=False,
            skip_missing=False,
        )
        places = [
            (one.config_path, self._package(one))
            for one in found.defaults
            if one.config_path is not None
        ]
        try:
            config = OmegaConf.create(self._merged(places))
        except _NotPlain:
            config = hydra_compose(PRIMARY, overrides=list(overrides))
        else:
            OmegaConf.set_struct(config, True)
            ConfigLoaderImpl._apply_overrides_to_config(found.config_overrides, config)
        for name, _ in places:
            if name not in self.said:
                self.said[name] = dict(leaves(self._said(name), ""))
        return config, tuple(places)

    def _package(self, one: Any) -> str:
        if one.package is not None:
            return str(one.package)
        loaded = self._repository.load_config(one.config_path)
        return str(loaded.header["package"] or "") if loaded else ""

    def _said(self, name: str) -> Any:
        try:
            return self._repository.plain(name)
        except _NotPlain:
            loaded = self._repository.load_config(name)
            return {} if loaded is None else OmegaConf.to_container(loaded.config, resolve=False)

    def _merged(self, places: Sequence[Place]) -> dict[str, Any]:
        whole: dict[str, Any] = {}
        for name, package in places:
            content: Any = self._repository.plain(name)
            if "hydra" in content:
                raise _NotPlain
            for part in reversed(package.split(".") if package else []):
                content = {part: content}
            _merge(whole, content)
        return whole


def _merge(below: dict[Any, Any], over: Mapping[Any, Any]) -> None:
    """Puts `over` into `below`, as OmegaConf does. Raises _NotPlain where a mapping meets a list or
    what an interpolation stands for."""
    for key, value in over.items():
        there = below.get(key)
        if value == "???" or {type(value), type(there)} == {dict, list}:
            raise _NotPlain
        if isinstance(value, dict):
            if not isinstance(there, dict):
                there = below[key] = {}
            _merge(there, value)
        else:
            below[key] = value
