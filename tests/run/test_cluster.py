"""Engines on the nodes of a real Ray cluster, its nodes on this machine."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from steps.base.record import Manifest
from steps.config.layers import merged
from steps.plan.plan import Job, Plan
from tests.conftest import planned
from tests.interpreter import interpreter
from tests.running import Running, alive, artifacts_of, below, command_of

pytestmark = pytest.mark.engine

SAMPLES = 64
NODES = 2


@pytest.fixture(scope="module")
def made() -> tuple[Plan, Job]:
    overrides = ["experiment=null-engine", "scenario=Server", "cluster=2-nodes"]
    plan = planned(*overrides, "hardware.engine.placement.cluster=local")
    return plan, next(job for job in plan.jobs if job.step == "performance_run")


@pytest.fixture(scope="module")
def python(made: tuple[Plan, Job], tmp_path_factory: pytest.TempPathFactory) -> str:
    return interpreter(*made, tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return artifacts_of(tmp_path_factory.mktemp("artifacts"), SAMPLES)


def config(job: Job, **placement: Any) -> dict[str, Any]:
    raw = json.loads(job.config)
    assert raw["engine"]["placement"]["nodes"] == NODES
    loadgen = {
        "performance_sample_count_override": SAMPLES,
        "target_qps": 250,
        "min_query_count": 1024,
        "min_duration_ms": 1,
    }
    changes = {"engines_per_node": 1, "on_failure": "redispatch", **placement}
    return merged(raw, {"loadgen": loadgen, "engine": {"placement": changes}})


def test_a_lost_nodes_samples_go_to_the_others(
    made: tuple[Plan, Job], python: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    running = Running("performance_run", config(made[1]), inputs, tmp_path, NODES, python)
    running.wait_until_running()
    everything = below(running.process.pid)
    (raylet,) = [
        pid
        for pid in everything
        if "/raylet/raylet " in command_of(pid) and "--head" not in command_of(pid)
    ]
    time.sleep(0.5)
    for pid in (raylet, *below(raylet)):
        os.kill(pid, signal.SIGKILL)
    status, text = running.ended()
    assert status == 0, text
    manifest = Manifest.read(tmp_path / "out/manifest.json")
    (failure,) = manifest.result["failures"]
    assert "on node 1" in failure or "on node 0" in failure
    assert sum(engine["samples"] for engine in manifest.result["engines"]) == 1024
    limit = time.monotonic() + 10
    while left := [command_of(pid) for pid in everything if alive(pid)]:
        assert time.monotonic() < limit, left
        time.sleep(0.1)


def test_a_cluster_that_is_not_there_gets_one_sentence(
    made: tuple[Plan, Job], python: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    auto = config(made[1], cluster="auto")
    running = Running("performance_run", auto, inputs, tmp_path, NODES, python)
    status, text = running.ended()
    assert status == 1
    assert "there is no Ray cluster at auto" in text
    assert "ray start --head" in text
    assert "Traceback" not in text
