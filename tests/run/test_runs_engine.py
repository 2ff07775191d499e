"""The three run steps on the real vLLM and the real LoadGen, with few samples."""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steps.base.record import Manifest, publish
from steps.base.threads import COUNTS
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen_log import read_answers
from steps.plan.plan import Job, Plan
from steps.prepare.rehearsal import dataset
from tests.conftest import ROOT, planned
from tests.interpreter import interpreter
from tests.running import command

pytestmark = pytest.mark.engine

SAMPLES = 96
LIMIT_S = 240
END = 2


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned()


@pytest.fixture(scope="module")
def jobs(plan: Plan) -> dict[tuple[str, str], Job]:
    found = {}
    for job in plan.jobs:
        if job.step.endswith("_run"):
            found[job.step, json.loads(job.config)["scenario"]] = job
    return found


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped model and the head of its dataset."""
    home = tmp_path_factory.mktemp("artifacts")
    with publish(home / "model", step="model", config={}, inputs={}, code="") as workspace:
        for path in (ROOT / "steps/prepare/rehearsal/model").iterdir():
            if path.name != "manifest.json":
                shutil.copy(path, workspace.directory)
        workspace.result = {"name": "tiny", "simulated": False}
    with publish(home / "dataset", step="dataset", config={}, inputs={}, code="") as workspace:
        dataset.evaluation(SAMPLES).to_pickle(workspace.directory / "evaluation.pkl")
        dataset.calibration(8).to_pickle(workspace.directory / "calibration.pkl")
    return {role: home / role / "manifest.json" for role in ("model", "dataset")}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(
    tmp_path: Path,
    plan: Plan,
    jobs: dict[tuple[str, str], Job],
    artifacts: dict[str, Path],
) -> Run:
    """Runs a step's command in the engine's environment, as Snakemake would."""

    def start(
        step: str, scenario: str, inputs: dict[str, Path] | None = None
    ) -> subprocess.CompletedProcess[str]:
        job = jobs[step, scenario]
        python = interpreter(plan, job, tmp_path)
        config = shortened(step, json.loads(job.config))
        given = {**artifacts, **(inputs or {})}
        return subprocess.run(
            command(step, config, given, tmp_path, python),
            cwd=ROOT,
            env={**os.environ, **dict.fromkeys(COUNTS, "2")},  # as of a job with two cores
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    return start


def shortened(step: str, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with as few samples as there are; a rate that a busy machine stands."""
    config["loadgen"] |= {"performance_sample_count_override": SAMPLES, "target_qps": 20.0}
    if step == "performance_run":
        # vLLM captures nothing on a CPU, without a word, and nobody asks for the variable.
        sizes = [{"from": 8, "to": 4, "by": 2}, 1]
        config["engine"]["arguments"]["compilation_config"] = {"cudagraph_capture_sizes": sizes}
        config["engine"]["environment"]["NOBODY_ASKS_FOR_THIS"] = "1"
        config["loadgen"] |= {"min_query_count": SAMPLES, "min_duration_ms": 1}
    return config


def test_offline_performance(run: Run, tmp_path: Path) -> None:
    done = run("performance_run", "Offline")
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out/manifest.json")
    detail = read_detail(manifest.file("mlperf_log_detail.txt"))
    assert detail.get("result_validity") == "VALID"
    assert detail.get("num_errors") == 0
    assert manifest.result["engine"]["name"] == "vllm"
    assert manifest.result["engine"]["device"] == "cpu"
    assert manifest.result["engine"]["threads"] == 1
    engine, others = (manifest.result["cpus"][name] for name in ("engine", "others"))
    if len(os.sched_getaffinity(0)) > 1:
        assert engine and others and not set(engine.split(",")) & set(others.split(","))
    resolved = manifest.result["resolved"]
    assert set(resolved["differences"]) >= {
        "arguments.compilation_config.cudagraph_capture_sizes: [8, 6, 4, 1] was asked for, "
        "the engine has []",
        "environment.NOBODY_ASKS_FOR_THIS: nothing in the engine's process read it",
    }
    assert "not as asked: arguments.compilation_config" in done.stderr
    assert resolved["attention"] and resolved["graphs"] == "NONE"
    assert resolved["kv_cache_blocks"] > 0 and resolved["block_size"] > 0
    assert resolved["variables"]["VLLM_CPU_KVCACHE_SPACE"] == "read"
    whole = json.loads(manifest.file("resolved.json").read_text(encoding="utf-8"))
    assert whole["configuration"]["scheduler_config"]["max_num_seqs"] == 128
    # LoadGen's own rate counts the tokens that we told it of.
    tokens = detail.get("result_tokens_per_second") * detail.get("result_max_latency_ns") / 1e9
    assert tokens == pytest.approx(manifest.result["output_tokens"], rel=1e-4)


def test_server_accuracy(run: Run, tmp_path: Path) -> None:
    """First tokens, whole answers and counts agree, and the answers are the model's."""
    done = run("accuracy_run", "Server")
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out/manifest.json")
    answers = list(read_answers(manifest.file("mlperf_log_accuracy.json")))
    assert sorted(answer.sample_index for answer in answers) == list(range(SAMPLES))
    limit = manifest.config["generation"]["max_tokens"]
    truth = dataset.evaluation(SAMPLES)["tok_output"]
    right = 0
    for answer in answers:
        assert answer.first_token == answer.tokens[:1]
        assert answer.token_count == len(answer.tokens)
        assert END not in answer.tokens[:-1]
        assert answer.tokens[-1] == END or answer.token_count == limit
        right += answer.tokens[:-1] == list(truth[answer.sample_index])
    assert right > 0.9 * SAMPLES
    with manifest.file("samples.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            assert 0 < float(row["first_token_s"]) < float(row["completed_s"])


def test_truncated_weights_are_refused(
    run: Run, tmp_path: Path, artifacts: dict[str, Path]
) -> None:
    """A manifest that fits a damaged file: the sentence is ours, not vLLM's traceback."""
    with publish(tmp_path / "cut", step="model", config={}, inputs={}, code="") as workspace:
        for path in artifacts["model"].parent.iterdir():
            if path.name not in ("manifest.json", "record.json"):
                shutil.copy(path, workspace.directory)
        weights = workspace.directory / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        workspace.result = {"name": "tiny", "simulated": False}
    done = run("performance_run", "Offline", inputs={"model": tmp_path / "cut/manifest.json"})
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "model.safetensors isn't a complete safetensors file" in errors[0]
    assert not (tmp_path / "out").exists()
