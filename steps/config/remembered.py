"""What Hydra and OmegaConf do again and again, done once a process: a quarter of a plan's time.

An interpolation is parsed each time it is resolved, a file read by each composition.
"""

import copy
import os
from functools import lru_cache
from typing import Any

import omegaconf._utils
import omegaconf.base
import omegaconf.grammar_parser
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult

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
    load = FileConfigSource.load_config

    @lru_cache(FILES)
    def read(
        provider: str, folder: str, config_path: str, written: tuple[int, int, int]
    ) -> ConfigResult:
        found: ConfigResult = load(FileConfigSource(provider, folder), config_path)
        return found

    def load_config(source: FileConfigSource, config_path: str) -> ConfigResult:
        path = os.path.join(source.path, source._normalize_file_name(config_path))
        try:
            status = os.stat(path)
        except OSError:
            return load(source, config_path)  # says what is wrong
        written = (status.st_ino, status.st_size, status.st_mtime_ns)
        known = read(source.provider, source.path, config_path, written)
        return copy.deepcopy(known)  # Hydra changes what it gets

    source_of_hydra: Any = FileConfigSource
    source_of_hydra.load_config = load_config
