"""Compositions are Hydra's, to the last value; files are read once, and again when they change."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

import steps.config.compose
from steps.base.errors import UserError
from steps.base.yaml_text import text_at, value_of
from steps.config import merging
from steps.config.merging import Composer
from tests.conftest import ROOT

CONF = ROOT / "conf"


@contextmanager
def within(conf: Path) -> Iterator[Composer]:
    with initialize_config_dir(str(conf), version_base="1.3"):
        yield Composer(conf)


def written(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["experiment=amd-v5.1", "system=amd-mi300x", "benchmark=llama2-70b-99.9", "precision=fp8"],
        ["experiment=amd-v5.1", "system=amd-mi355x", "benchmark=llama3.1-405b", "precision=mxfp4"],
        ["round=v6.1", "system=amd-mi355x-v6.0", "engine=vllm-rocm-v6.0", "scheduler=slurm"],
        ["system=vultr-mi325x-epyc-9554", "benchmark=mixtral-8x7b", "++system.loadgen.x={a: 1}"],
        ["benchmark=stable-diffusion-xl", "length=rule", "~journal", "+added.key=[1,2]"],
    ],
)
def test_a_composition_is_hydras(overrides: list[str]) -> None:
    with within(CONF) as composer:
        config, places = composer.compose(overrides)
        theirs = hydra_compose("config", overrides=overrides)
    assert written(config) == written(theirs)
    assert list(config) == list(theirs), "layers apply in this order"
    assert places[0] != places[-1] and len(set(places)) == len(places)


def test_hydras_own_merge_is_not_needed_for_any_file_of_conf(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("merged by OmegaConf")

    monkeypatch.setattr(merging, "hydra_compose", refuse)
    groups = ("system", "benchmark", "compression", "round", "cluster", "scheduler")
    choices = [[f"{name}={path.stem}" for path in (CONF / name).glob("*.yaml")] for name in groups]
    with within(CONF) as composer:
        for chosen in zip_longest(*choices):
            composer.compose([one for one in chosen if one])


KEYS = st.sampled_from(["a", "b", "c", "1"])
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-9, 9),
        st.sampled_from(["text", "${a}", "${b.c}", "x${a}", "???", ""]),
        st.lists(st.integers(0, 3), max_size=2),
    ),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


PLACES = st.sampled_from(["", "# @package _global_\n", "# @package a\n", "# @package a.b\n"])
"""Where a file is put: without a header at the name of its folder."""


A_LIST = ("# @package _global_\n", {"a": {"b": [0]}})


@settings(max_examples=50)
@example([A_LIST, ("# @package a\n", {"b": {}})])
@given(
    st.lists(st.tuples(PLACES, st.dictionaries(KEYS, VALUES, max_size=3)), min_size=2, max_size=4)
)
def test_any_files_are_merged_as_hydra_does_it(files: list[tuple[str, dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "part").mkdir()
        for number, (package, content) in enumerate(files):
            text = package + (yaml.safe_dump(content) if content else "")
            (home / f"part/p{number}.yaml").write_text(text, encoding="utf-8")
        listed = [f"part/p{number}" for number in range(len(files))]
        primary = yaml.safe_dump({"defaults": [*listed, "_self_"], "own": 1})
        (home / "config.yaml").write_text(primary, encoding="utf-8")
        with within(home) as composer:
            assert outcome(lambda: composer.compose([])[0]) == outcome(
                lambda: hydra_compose("config")
            )


def outcome(compose: Any) -> Any:
    """What is composed, or that nothing can be."""
    try:
        return written(compose())
    except (HydraException, OmegaConfBaseException, ValueError, TypeError):
        return "refused"


def test_compositions_read_a_file_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return text_at(path)

    monkeypatch.setattr(merging, "text_at", counted)
    found = steps.config.compose.compose(project / "conf", ["precision=bf16,fp8"])
    assert len(found.cells) > 1
    assert len(read) > 10 and len(read) == len(set(read))


def test_a_changed_file_is_read_again_even_if_its_size_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for number, value in enumerate(("one", "two")):
        path.write_text(f"key: {value}\n", encoding="utf-8")
        os.utime(path, ns=(number, number))
        with within(tmp_path) as composer:
            config, _ = composer.compose([])
            assert config == {"key": value}
            config["key"] = "changed"
            assert composer.compose([])[0] == {"key": value}
            assert composer.said == {"config": {"key": value}}


TEXTS: Mapping[str, str] = {
    "numbers": "a: 1e3\nb: 1_000\nc: .5\nd: 0x10\ne: 1e-4\nf: +7\ng: 12:30\nh: .inf\n",
    "words": "a: yes\nb: 'no'\nc: ~\nd: null\ne: on\nf: 2025-01-02\ng: ''\n",
    "anchors": "a: &x {p: 1}\nb: *x\nc: {<<: *x, q: 2}\n",
    "empty": "",
    "list": "- 1\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_is_read_as_omegaconf_reads_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(TEXTS[name], encoding="utf-8")
    found, theirs = value_of(TEXTS[name], "a.yaml"), written(OmegaConf.load(path))
    assert repr(found or {}) == repr(theirs or {})


@given(st.from_regex(r"[-+]?[0-9._]{1,5}([eE][-+]?[0-9]{1,3})?", fullmatch=True))
def test_a_number_is_read_as_omegaconf_reads_it(text: str) -> None:
    line = f"a: {text}\n"
    try:
        theirs = yaml.load(line, get_yaml_loader())
    except ValueError:  # a number to PyYAML, and none to Python
        with pytest.raises(UserError):
            value_of(line, "")
    else:
        assert repr(value_of(line, "")) == repr(theirs)


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: [1\n", "a: *x\n", "a: !!python/none x\n"])
def test_what_omegaconf_refuses_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(yaml.YAMLError):
        OmegaConf.load(path)
    with pytest.raises(UserError, match=r"a\.yaml can't be read: .*line"):
        value_of(text, "a.yaml")
