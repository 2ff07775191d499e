"""What a composition reads twice is read once, and never after it was changed."""

import os
from pathlib import Path
from typing import Any

import omegaconf.base
import omegaconf.grammar_parser
import pytest
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigLoadError, ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError

import steps.config.compose


def source(home: Path) -> ConfigSource:
    """As Hydra makes it."""
    return SourcesRegistry.instance().resolve("file")("main", str(home))


def test_compositions_read_a_file_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    load = OmegaConf.load

    def counted(stream: Any) -> Any:
        read.append(str(getattr(stream, "name", stream)))
        return load(stream)

    monkeypatch.setattr(OmegaConf, "load", counted)
    found = steps.config.compose.compose(project / "conf", ["precision=bf16,fp8"])
    assert len(found.cells) > 1
    ours = [name for name in read if name.startswith(str(project))]
    assert len(ours) > 10 and len(ours) == len(set(ours))


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
