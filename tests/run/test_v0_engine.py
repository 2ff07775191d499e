"""The three runs of Llama 2's three scenarios through a real V0, started by our fleet.

Opt-in: REPRISE_V0 names an environment of `python -m bench.v0_environment` (6 GB).
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from steps.base.record import Manifest, publish
from steps.judge.compliance import tokens
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen_log import read_answers
from steps.prepare.rehearsal import dataset
from tests.conftest import ROOT, planned
from tests.running import command

ENVIRONMENT = os.environ.get("REPRISE_V0", "")

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not ENVIRONMENT, reason="REPRISE_V0 names no environment of V0"),
]

SAMPLES = 128
LIMIT_S = 900
END = 2


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("artifacts")
    with publish(home / "model", step="model", config={}, inputs={}, code="") as workspace:
        for path in (ROOT / "steps/prepare/rehearsal/model").iterdir():
            if path.name != "manifest.json":
                shutil.copy(path, workspace.directory)
        workspace.result = {"name": "tiny", "simulated": False}
    # NumPy 1.26, which AMD's images have too, reads no array of protocol 5 that NumPy 2 wrote.
    with publish(home / "dataset", step="dataset", config={}, inputs={}, code="") as workspace:
        dataset.evaluation(SAMPLES).to_pickle(workspace.directory / "evaluation.pkl", protocol=4)
        dataset.calibration(8).to_pickle(workspace.directory / "calibration.pkl", protocol=4)
    return {role: home / role / "manifest.json" for role in ("model", "dataset")}


def run(step: str, scenario: str, artifacts: dict[str, Path], home: Path) -> Manifest:
    plan = planned(f"scenario={scenario}")
    job = next(job for job in plan.jobs if job.step == step)
    config: dict[str, Any] = json.loads(job.config)
    config["loadgen"] |= {"performance_sample_count_override": SAMPLES, "target_qps": 4.0}
    if step == "performance_run":
        config["loadgen"] |= {"min_query_count": SAMPLES, "min_duration_ms": 1}
    engine = config["engine"]
    engine["environment"] |= {"VLLM_USE_V1": "0"}
    engine["arguments"] |= {"enable_chunked_prefill": False}
    engine["placement"] |= {"in_process": False}
    python = f"{ENVIRONMENT}/bin/python"
    done = subprocess.run(
        command(step, config, artifacts, home, python),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    made = Manifest.read(home / "out/manifest.json")
    assert (made.result["engine"]["version"], made.result["engine"]["generation"]) == (
        "0.9.1",
        "V0",
    )
    assert not read_detail(made.file("mlperf_log_detail.txt")).errors
    return made


@pytest.mark.parametrize("scenario", ["Offline", "Server", "Interactive"])
def test_performance(scenario: str, artifacts: dict[str, Path], tmp_path: Path) -> None:
    """Every sample is answered, with more than 20 tokens on average."""
    made = run("performance_run", scenario, artifacts, tmp_path)
    assert made.result["samples"] >= SAMPLES
    assert made.result["output_tokens"] > 20 * made.result["samples"]


@pytest.mark.parametrize("scenario", ["Offline", "Server", "Interactive"])
def test_accuracy(scenario: str, artifacts: dict[str, Path], tmp_path: Path) -> None:
    made = run("accuracy_run", scenario, artifacts, tmp_path)
    answers = list(read_answers(made.file("mlperf_log_accuracy.json")))
    truth = dataset.evaluation(SAMPLES)["tok_output"]
    right = sum(list(a.tokens) == [*truth[a.sample_index], END] for a in answers)
    assert len(answers) == SAMPLES
    assert right >= 0.95 * SAMPLES
    for answer in answers if scenario != "Offline" else ():
        assert answer.first_token == answer.tokens[:1]


@pytest.mark.parametrize("scenario", ["Offline", "Server", "Interactive"])
def test_test06(scenario: str, artifacts: dict[str, Path], tmp_path: Path) -> None:
    made = run("compliance_run", scenario, artifacts, tmp_path)
    log = read_answers(made.file("mlperf_log_accuracy.json"))
    found = tokens.examine(log, {END}, timed=scenario != "Offline")
    assert found.samples
    assert found.terminated
    assert not found.faults
