"""What Hydra and OmegaConf do again and again, done once a process: a quarter of a plan's time.

An interpolation is parsed each time it is resolved, a file read by each composition.
"""

import copy
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import omegaconf._utils
import omegaconf.base
import omegaconf.grammar_parser
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from steps.base.yaml_text import mapping_of

TEXTS, FILES = 4096, 512
"""So many are remembered: several times what conf/ has."""


def remember() -> None:
    """From now on, in this process.

    Both are private to the pinned versions of these packages; with a version that has them no more,
    this raises AttributeError or AssertionError, and nothing can be composed.
    """
    parse = omegaconf.grammar_parser.parse
    once = lru_cache(TEXTS)(parse)
    modules: tuple[Any, ...] = (omegaconf.grammar_parser, omegaconf._utils, omegaconf.base)
    for module in modules:
        assert module.parse is parse
        module.parse = once
    Plugins.instance()  # looks for sources, and so makes their classes: later it would make others
    kind: Any = SourcesRegistry.instance().resolve("file")
    load = kind.load_config

    @lru_cache(FILES)
    def read(
        provider: str, folder: str, config_path: str, path: str, written: tuple[int, int, int]
    ) -> ConfigResult:
        mapping_of(Path(path), or_nothing=True)  # says what is wrong, and where
        found: ConfigResult = load(kind(provider, folder), config_path)
        return found

    def load_config(source: Any, config_path: str) -> ConfigResult:
        path = os.path.join(source.path, source._normalize_file_name(config_path))
        try:
            status = os.stat(path)
        except OSError:
            missing: ConfigResult = load(source, config_path)  # says what is wrong
            return missing
        written = (status.st_ino, status.st_size, status.st_mtime_ns)
        known = read(source.provider, source.path, config_path, path, written)
        return copy.deepcopy(known)  # Hydra changes what it gets

    kind.load_config = load_config
