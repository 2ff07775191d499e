"""What OmegaConf does again and again, done once a process: it parses an interpolation each time
that it resolves it.
"""

from functools import lru_cache
from typing import Any

import omegaconf._utils
import omegaconf.base
import omegaconf.grammar_parser

TEXTS = 4096
"""So many are remembered: several times what conf/ has."""


def remember() -> None:
    """From now on, in this process.

    `parse` is private to the pinned version of OmegaConf; with one that has it no more, this raises
    AttributeError or AssertionError, and nothing can be composed.
    """
    parse = omegaconf.grammar_parser.parse
    once = lru_cache(TEXTS)(parse)
    modules: tuple[Any, ...] = (omegaconf.grammar_parser, omegaconf._utils, omegaconf.base)
    for module in modules:
        assert module.parse is parse
        module.parse = once
