"""A round that nobody has heard of, as files only: its limits, counts, tests, LoadGen's settings
and the layout of its trees, and a new version of an engine. No file of steps/ knows any of it."""

import json
import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from steps.base.errors import UserError
from steps.plan.make import make
from tests.conftest import ROOT, copy_project, edit, reproduce

ROUND = """\
defaults: [v6.1, _self_]

name: v7.0
source: made up
loadgen_version: 5.1.2 # of the environments here, and its seeds
seeds:
  qsl_rng_seed: 1780908523862526354
  sample_index_rng_seed: 14771362308971278857
  schedule_rng_seed: 18209322760996052031
min_duration_ms: 2000
exact_files: true
layout:
  code: source
  code_of_models: false
  measurements: described
  compliance: tests
  description: weights.json
  endpoint: null
compliance:
  TEST06: {audit: {min_query_count: 40, accuracy_log_sampling_target: 30}}
benchmarks:
  llama2-70b-99:
    loadgen_model: llama3_1-405b # LoadGen judges by what it has of this name
    performance_sample_count: 96
    dataset_size: 160
    offline_min_samples: 120
    compliance_tests: [TEST06]
    limits: {Server: {ttft_ms: 6000, tpot_ms: 175}}
    equal_issue: true
    token_latencies: true
    target_latency_ms: {Server: 60000}
    units: {Offline: Tokens/s, Server: Tokens/s}
    eos_token_ids: [2]
    scenarios: {datacenter: {required: [Offline, Server]}}
    accuracy: {minimum: {ROUGE1: 1}, maximum: {}}
    result_keys: {Offline: result_tokens_per_second, Server: result_completed_tokens_per_second}
"""
LENGTH = """\
name: rule
evaluation_count: ${rules.dataset_size}
min_duration_ms: ${round.min_duration_ms}
min_query_count: null
performance_sample_count_override: ${rules.performance_sample_count}
"""
EXPERIMENT = """\
# @package _global_
defaults: [null-engine, override /round: v7.0, override /length: seven, _self_]

experiment_name: seven
matrix: {scenario: [Offline, Server]}
benchmark: {reference: {rule: {samples: 160}}}
compression: {required_gate: none}
"""
ENGINE = """\
defaults: [vllm, _self_]

name: vllm-70
settings:
  build: vllm-70.0.0
  arguments: {made_up_overlap: 3, async_scheduling: null}
rocm: {base: "vllm/vllm-openai-rocm:v70.0.0"}
"""
HOME = "results/seven"
RUNS = f"{HOME}/runs/null-engine/rehearsal/none/bf16"
TREE = f"{HOME}/package/submission"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = copy_project(tmp_path_factory.mktemp("clone"))
    for name, text in (
        ("round/v7.0", ROUND),
        ("length/seven", LENGTH),
        ("experiment/seven", EXPERIMENT),
        ("engine/vllm-70", ENGINE),
    ):
        (home / f"conf/{name}.yaml").write_text(text, encoding="utf-8")
    options = json.loads((home / "conf/options/vllm-0.32.0.json").read_text(encoding="utf-8"))
    options |= {"name": "vLLM 70.0.0", "source": "made up"}
    options["arguments"]["made_up_overlap"] = {"type": "int", "ge": 1, "le": 4}
    del options["arguments"]["async_scheduling"]
    path = home / "conf/options/vllm-70.0.0.json"
    path.write_text(json.dumps(options), encoding="utf-8")
    if (ROOT / ".envs").is_dir():
        (home / ".envs").symlink_to((ROOT / ".envs").resolve())
    return home


@pytest.fixture(scope="module")
def ran(clone: Path) -> Path:
    """The whole experiment on null engines, which only this clone submits, far from Greenwich."""
    edit(clone / "steps/submit/submission/verdicts.py", '"vllm", "diff', '"vllm", "null", "diff')
    status, text = reproduce(clone, "experiment=seven", environment={"TZ": "Asia/Kolkata"})
    assert status == 0, text
    return clone


def logged(run: Path) -> dict[str, object]:
    """Values of LoadGen's own log."""
    lines = (run / "mlperf_log_detail.txt").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    return {entry["key"]: entry["value"] for entry in entries}


AMD = (
    *("experiment=amd-v5.1", "system=amd-mi355x"),
    *("benchmark=llama2-70b-99.9", "scenario=Offline"),
)


def test_a_new_version_of_an_engine_is_two_files(clone: Path) -> None:
    planned = make(clone, [*AMD, "engine=vllm-70"]).model_dump_json()
    assert '\\"made_up_overlap\\":3' in planned and "vllm-openai-rocm:v70.0.0" in planned
    for build, change, said in (
        ("vllm-70", "set.engine.async_scheduling=true", "vLLM 70.0.0 has no such argument"),
        (
            "vllm-70",
            "set.engine.made_up_overlap=5",
            "made_up_overlap is 5, and has to be at most 4",
        ),
        ("vllm", "set.engine.made_up_overlap=3", "has no such argument"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            make(clone, [*AMD, f"engine={build}", change])


def test_a_plan_has_the_rounds_numbers(clone: Path) -> None:
    """By the command: rules are read from where the code lies."""
    status, text = reproduce(clone, "plan", "experiment=seven")
    assert status == 0, text
    assert "instead of" not in text, "nothing departs from the round's rules"
    shorter = ("length.min_duration_ms=1999", "length.performance_sample_count_override=95")
    status, text = reproduce(clone, "plan", "experiment=seven", *shorter)
    assert status == 0, text
    assert "min_duration_ms is 1,999 instead of 2,000" in text
    assert "performance_sample_count is 95 instead of 96" in text


@pytest.mark.e2e
def test_loadgen_runs_by_the_rounds_numbers(ran: Path) -> None:
    offline = logged(ran / RUNS / "Offline/performance_run")
    assert offline["effective_performance_sample_count"] == 96
    assert offline["qsl_reported_total_count"] == 160
    assert offline["effective_min_duration_ms"] == 2000
    server = logged(ran / RUNS / "Server/performance_run")
    assert server["requested_server_ttft_latency"] == 6000 * 10**6
    test = logged(ran / RUNS / "Server/compliance_run")
    assert test["effective_accuracy_log_sampling_target"] == 30
    assert test["effective_min_query_count"] == 40


@pytest.mark.e2e
def test_the_tree_lies_as_the_round_says_and_holds(ran: Path) -> None:
    home = ran / TREE / "open/Reprise"
    place = "null-engine/rehearsal/Server"
    assert sorted(path.name for path in home.iterdir() if path.is_dir()) == [
        *("described", "documentation", "results", "source", "systems", "tests")
    ]
    described = {path.name for path in (home / "described" / place).iterdir()}
    assert described == {"user.conf", "README.md", "weights.json"}
    assert (home / "tests" / place / "TEST06/verify_accuracy.txt").is_file()
    assert {path.name for path in (home / "results" / place).iterdir()} == {
        *("performance", "accuracy")
    }
    status, text = reproduce(ran, "validate", TREE, "--round", "v7.0")
    assert status == 0, text
    status, text = reproduce(ran, "validate", TREE, "--round", "v6.0")
    assert status == 1
    assert "the tree has the layout of v7.0, not v6.0" in text
    assert "performance-seed" in text


@pytest.mark.e2e
def test_no_time_zone_keeps_a_tree_from_being_submitted(ran: Path) -> None:
    """LoadGen writes local time with a Z behind it, and when queries began in UTC."""
    log = logged(ran / RUNS / "Offline/performance_run")
    local = datetime.fromisoformat(str(log["test_datetime"]).removesuffix("Z"))
    begun = datetime.strptime(str(log["power_begin"]), "%m-%d-%Y %H:%M:%S.%f")
    assert abs(local - begun - timedelta(hours=5.5)) < timedelta(minutes=5)
    summary = json.loads((ran / HOME / "report/summary.json").read_text(encoding="utf-8"))
    assert summary["may_be_submitted"] is True


@pytest.mark.e2e
def test_there_and_back_is_the_same_tree(ran: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    assert reproduce(ran, "migrate", TREE, "--round", "v6.1", "--output", str(older))[0] == 0
    result = older / "open/Reprise/results/null-engine/rehearsal/Server"
    assert (result / "measurements.json").is_file() and (result / "TEST06").is_dir()
    back = tmp_path / "back"
    assert reproduce(ran, "migrate", str(older), "--round", "v7.0", "--output", str(back))[0] == 0
    assert contents(back) == contents(ran / TREE)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ttft_ms: 6000", "ttft_ms: 5", "it must be below 5 ms"),
        ("dataset_size: 160", "dataset_size: 161", "the dataset has 161"),
        ("performance_sample_count: 96", "performance_sample_count: 97", "at least 97 is required"),
        ("min_duration_ms: 2000", "min_duration_ms: 700000", "at least 700000 is required"),
        ("code: source", "code: sources", "sources"),
    ],
)
def test_each_number_is_what_the_tree_is_judged_by(
    old: str, new: str, said: str, ran: Path, tmp_path: Path
) -> None:
    home = copy_project(tmp_path)
    shutil.copytree(ran / "conf", home / "conf", dirs_exist_ok=True)
    (home / ".envs").symlink_to((ROOT / ".envs").resolve())
    edit(home / "conf/round/v7.0.yaml", old, new)
    status, text = reproduce(home, "validate", str(ran / TREE), "--round", "v7.0")
    assert status == 1
    assert said in text, text
