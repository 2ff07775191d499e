"""Engines on the nodes of a real Ray cluster, its nodes on this machine."""

import json
import os
import re
import signal
import subprocess
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


def listening(pids: set[int]) -> set[str]:
    """Addresses that any of these processes listens on, as the kernel writes them."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                name = os.readlink(link)
            except OSError:
                continue
            if name.startswith("socket:["):
                sockets.add(name.removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1].split(":")[0])
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}

TASK = """
import os, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("RAN AS", ray.get(ray.remote(os.getuid).options(num_cpus=0).remote(), timeout=20))
"""


def test_a_cluster_on_this_machine_is_closed_to_others(
    made: tuple[Plan, Job], python: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    asked = config(made[1])
    asked["loadgen"]["min_query_count"] = 4096
    running = Running("performance_run", asked, inputs, tmp_path, NODES, python)
    running.wait_until_running()
    everything = {running.process.pid, *below(running.process.pid)}
    assert listening(everything) <= LOOPBACK
    commands = " ".join(map(command_of, everything))
    (address, *_) = re.findall(r"--gcs-address=(127\.0\.0\.1:\d+)", commands)
    tokens = {
        entry.removeprefix("RAY_AUTH_TOKEN=")
        for pid in everything
        for entry in Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
        if entry.startswith("RAY_AUTH_TOKEN=")
    }
    (token,) = tokens
    assert token not in commands
    for mode in ("disabled", "token"):
        stranger = {"HOME": str(tmp_path), "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "wrong"}
        done = subprocess.run(
            ["timeout", "10", python, "-c", TASK, address],
            env={**os.environ, **stranger},
            capture_output=True,
            text=True,
        )
        assert "RAN AS" not in done.stdout and done.returncode
    status, text = running.ended()
    assert status == 0, text
    assert running.manifest().result["exposed"] == []


def test_a_cluster_that_is_not_there_gets_one_sentence(
    made: tuple[Plan, Job],
    python: str,
    inputs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # a killed one's address may be in /tmp/ray
    auto = config(made[1], cluster="auto")
    running = Running("performance_run", auto, inputs, tmp_path, NODES, python)
    status, text = running.ended()
    assert status == 1
    assert "there is no Ray cluster at auto" in text
    assert "ray start --head" in text
    assert "Traceback" not in text
