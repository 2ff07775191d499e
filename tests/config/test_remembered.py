"""What a composition reads twice is read once, and never after it was changed."""

import os
from pathlib import Path

import omegaconf.base
import omegaconf.grammar_parser
import pytest
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigLoadError
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError

import steps.config.compose  # noqa: F401 - it remembers


def source(home: Path) -> FileConfigSource:
    return FileConfigSource("main", str(home))


def test_a_changed_file_is_read_again_even_if_its_size_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for number, text in enumerate(("key: one\n", "key: two\n")):
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(number, number))
        assert source(tmp_path).load_config("a").config == {"key": text[5:8]}


def test_what_hydra_does_to_a_file_stays_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("key: one\n", encoding="utf-8")
    for _ in range(2):
        found = source(tmp_path).load_config("a").config
        assert found == {"key": "one"}
        found["key"] = "changed"


def test_a_file_that_is_none_is_refused_as_before(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("key: one\n", encoding="utf-8")
    source(tmp_path).load_config("a")
    (tmp_path / "a.yaml").unlink()
    with pytest.raises(ConfigLoadError, match="Config not found"):
        source(tmp_path).load_config("a")


def test_an_interpolation_is_parsed_once_and_resolved_each_time() -> None:
    text = "${value}-of-this-test"
    tree = omegaconf.grammar_parser.parse(text)
    assert omegaconf.base.parse(text) is tree
    for value in (1, 2):
        assert OmegaConf.create({"value": value, "text": text}).text == f"{value}-of-this-test"
    for _ in range(2):
        with pytest.raises(GrammarParseError):
            omegaconf.grammar_parser.parse("${")
