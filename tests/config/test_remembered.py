"""What OmegaConf does again and again is done once."""

import omegaconf.base
import omegaconf.grammar_parser
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError

import steps.config.compose  # noqa: F401 - it remembers


def test_an_interpolation_is_parsed_once_and_resolved_each_time() -> None:
    text = "${value}-of-this-test"
    tree = omegaconf.grammar_parser.parse(text)
    assert omegaconf.base.parse(text) is tree
    for value in (1, 2):
        assert OmegaConf.create({"value": value, "text": text}).text == f"{value}-of-this-test"
    for _ in range(2):
        with pytest.raises(GrammarParseError):
            omegaconf.grammar_parser.parse("${")
