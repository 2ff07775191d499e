"""Rounds as data, against the numbers that were read from each round's checker and LoadGen."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from steps.base.errors import UserError
from steps.mlperf import rounds
from steps.plan.make import make
from tests.conftest import ROOT, edit, planned

GOLDEN = json.loads((ROOT / "tests/golden/rounds.json").read_text(encoding="utf-8"))


def composed(name: str) -> Mapping[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        raw = compose("config", overrides=[f"round={name}"])["round"]
    found: Mapping[str, Any] = OmegaConf.to_container(raw)  # type: ignore[assignment]
    return found


def rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(float(value), 7)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_a_round_holds_the_published_numbers(name: str) -> None:
    found, expected = composed(name), GOLDEN[name]
    assert found["seeds"] == expected["seeds"]
    assert found["min_duration_ms"] == expected["min_duration_ms"]
    benchmarks = {key: value for key, value in found["benchmarks"].items() if value is not None}
    assert set(benchmarks) == set(expected["benchmarks"])
    for benchmark, numbers in expected["benchmarks"].items():
        have = benchmarks[benchmark]
        for key in ("performance_sample_count", "dataset_size", "offline_min_samples"):
            assert have.get(key) == numbers[key], (benchmark, key)
        assert have.get("accuracy_sample_count") == numbers["accuracy_sample_count"]
        assert have["compliance_tests"] == numbers["tests"]
        assert have["limits"] == numbers["limits"], benchmark
        suites = {suite: value for suite, value in have["scenarios"].items() if value is not None}
        assert {s: v["required"] for s, v in suites.items()} == numbers["required"]
        optional = {s: v["optional"] for s, v in suites.items() if v.get("optional")}
        assert optional == numbers["optional"], benchmark
        for bound in ("minimum", "maximum"):
            values = {k: v for k, v in have["accuracy"][bound].items() if v is not None}
            assert rounded(values) == rounded(numbers[bound]), benchmark


@pytest.mark.parametrize("name", rounds.names())
def test_the_validator_reads_what_hydra_composes(name: str) -> None:
    assert rounds.table(name) == composed(name)


def test_rounds_are_listed_by_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("v10.0", "v6.1", "v6.0"):
        (tmp_path / f"{name}.yaml").touch()
    monkeypatch.setattr(rounds, "ROUNDS", tmp_path)
    assert rounds.names() == ["v6.0", "v6.1", "v10.0"]


KEYS = """\
defaults: [v5.1, _self_]
name: v9.0
"""


def given_rounds(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """v5.1, and this text as a round that builds on it."""
    (folder / "v5.1.yaml").write_bytes((rounds.ROUNDS / "v5.1.yaml").read_bytes())
    (folder / "v9.0.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(rounds, "ROUNDS", folder)
    for name in ("load", "layouts", "_layout", "_file"):
        monkeypatch.setattr(rounds, name, cache(getattr(rounds, name).__wrapped__))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("compliance: {TEST06: {min_sampels: 1}}", "compliance.TEST06.min_sampels: no such key"),
        ("benchmarks: {resnet: {dataset_sise: 5}}", "benchmarks.resnet.dataset_sise: no such key"),
        ("benchmarks: {resnet: {dataset_size: 0}}", "benchmarks.resnet.dataset_size: input"),
        ("benchmarks: {resnet: {limits: {Server: 1}}}", "benchmarks.resnet.limits.Server: input"),
        ("benchmarks: {new: {dataset_size: 5}}", "benchmarks.new.performance_sample_count: field"),
        ("benchmarks: {resnet: {scenarios: {edge: {requird: []}}}}", "benchmarks.resnet.scenarios"),
        ("benchmarks: []", "benchmarks: input should be"),
        ("layout: {kode: src}", "layout.kode: no such key"),
        ("exact_file: true", "exact_file: no such key"),
        ("seeds: {qsl_rng_seed: abc}", "seeds.qsl_rng_seed: input should be a valid integer"),
    ],
)
def test_a_fault_of_a_rounds_file_is_named(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_rounds(tmp_path, monkeypatch, f"{KEYS}{text}\n")
    with pytest.raises(UserError) as error:
        rounds.load("v9.0")
    assert str(error.value).startswith(f"{tmp_path}/v9.0.yaml: {said}")
    assert "\n" not in str(error.value)


def test_a_fault_of_a_rounds_file_is_found_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal issue is off where no key says so, and the tree would be refused after the runs."""
    given_rounds(tmp_path, monkeypatch, KEYS)
    base = tmp_path / "v5.1.yaml"
    base.write_text(base.read_text("utf-8").replace("equal_issue", "equal_isue"))
    with pytest.raises(UserError, match=r"v5\.1\.yaml: .*equal_isue: no such key"):
        make(ROOT, ["experiment=amd-v5.1", "benchmark=llama2-70b-99.9", "scenario=Offline"])


def test_a_fault_is_in_the_file_that_has_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_rounds(tmp_path, monkeypatch, KEYS)
    edit(tmp_path / "v5.1.yaml", "calibration_requi", "calibration_rqui")
    for name in ("v5.1", "v9.0"):
        with pytest.raises(UserError, match=r"v5\.1\.yaml: .*calibration_rquired: no such key"):
            rounds.load(name)


@pytest.mark.parametrize("text", ["a: [", "- a", "", "defaults: [v3.0, _self_]"])
def test_a_file_of_no_round_is_refused_in_a_sentence(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_rounds(tmp_path, monkeypatch, text)
    with pytest.raises(UserError, match=r"v[93]\.0\.yaml can't be read: "):
        rounds.load("v9.0")


def test_whatever_names_no_round_has_that_of_a_plan() -> None:
    assert rounds.usual() == composed_default()["name"] and rounds.usual() in rounds.names()


def composed_default() -> Mapping[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        raw = compose("config")["round"]
    found: Mapping[str, Any] = OmegaConf.to_container(raw)  # type: ignore[assignment]
    return found


def test_a_layout_is_called_by_the_first_round_that_has_it() -> None:
    assert [layout.name for layout in rounds.layouts()] == ["v5.1", "v6.0"]
    older, newer = rounds.layouts()
    assert older.described("8xA*") == "8xA*.json" and newer.described("8xA") == "measurements.json"
    assert older.describes("8xA", "8xA_Offline.json") and not older.describes("8xA", "8xB.json")
    assert not newer.describes("8xA", "8xA.json")


def test_every_round_is_whole() -> None:
    for name in rounds.names():
        found = rounds.load(name)
        assert found.name == name
        assert set(found.seeds) == {
            *("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed"),
        }
        assert all(benchmark.required for benchmark in found.benchmarks.values())


def test_a_round_without_the_benchmark_says_so() -> None:
    with pytest.raises(UserError, match="mixtral-8x7b"):
        planned("experiment=amd-v5.1", "benchmark=mixtral-8x7b", "round=v6.1")


def test_a_bound_of_a_test_is_a_benchmark_of_its_round() -> None:
    for name in rounds.names():
        found = rounds.load(name)
        for test, rule in found.compliance.items():
            for benchmark in rule.bounds:
                assert test in found.benchmarks[benchmark].compliance_tests


def test_accuracy_is_measured_on_the_samples_of_performance_unless_the_round_says_a_number() -> (
    None
):
    benchmarks = rounds.load("v6.1").benchmarks
    several, other = benchmarks["qwen3-vl-235b-a22b"], benchmarks["gpt-oss-120b"]
    assert several.accuracy_samples("Interactive") == 8000
    assert several.one_dataset("Offline") is True
    assert several.one_dataset("Interactive") is False
    assert other.one_dataset("Server") is False
    assert benchmarks["deepseek-r1"].one_dataset("Server") is True


def test_a_model_is_official_by_its_own_name_or_by_an_alias() -> None:
    found = rounds.load("v5.1")
    (alias, model), *_ = found.model_aliases.items()
    assert found.official("llama2-70b-99") == "llama2-70b-99"
    assert found.official(alias) == model
    assert found.official("nobodys-model") is None
    gone = found.model_copy(update={"benchmarks": {}})
    assert gone.official(alias) is None, "no longer part of the round"


def test_an_open_models_benchmark_is_inferred_from_a_part_of_its_name() -> None:
    found = rounds.load("v5.1")
    (part, model), *_ = found.model_parts.items()
    assert found.inferred(f"our-{part}-pruned") == found.official(model) is not None
    assert found.inferred("nobodys-model") is None


@pytest.mark.parametrize(
    ("own", "delta"),
    [(3.0, 3.0), ({"CLIP_SCORE": 3.0}, 3.0), ({"FID_SCORE": 3.0}, 1.0), (None, 1.0)],
)
def test_how_far_a_metric_may_move_is_the_benchmarks_own_bound_or_the_general_one(
    own: float | dict[str, float] | None, delta: float
) -> None:
    bounds = {"*": 1.0, "other": own} if own else {"*": 1.0}
    test = rounds.load("v5.1").compliance["TEST01"].model_copy(update={"delta_percent": bounds})
    assert test.delta("other", "CLIP_SCORE") == delta


def test_a_metric_without_a_bound_is_named() -> None:
    with pytest.raises(UserError, match=r"neither llama2-70b-99 nor '\*' how far rouge1 may move"):
        rounds.load("v5.1").compliance["TEST06"].delta("llama2-70b-99", "rouge1")
