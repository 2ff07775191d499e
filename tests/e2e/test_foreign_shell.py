"""A shell that exports modules and settings of its own: nothing of it reaches a measured run."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, copy_project, reproduce

pytestmark = pytest.mark.e2e

BASE = ["experiment=null-engine", "scenario=Offline", "hardware.engine.arguments.max_num_seqs=16"]
LIMIT_S = 600


def test_a_measured_run_sees_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = copy_project(tmp_path / "clone")
    (home / ".envs").symlink_to(ROOT / ".envs")
    foreign = tmp_path / "modules"
    foreign.mkdir()
    for name in ("mlperf_loadgen", "yaml", "pandas"):
        (foreign / f"{name}.py").write_text(f"raise RuntimeError('foreign {name}')\n", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(foreign))
    for name in ("VLLM_USE_V1", "HSA_XNACK", "PIP_TARGET", "NCCL_DEBUG"):
        monkeypatch.setenv(name, "foreign")
    status, text = reproduce(
        home,
        *BASE,
        "system.target_qps.Offline=200",
        "--",
        "--until",
        "performance_run",
        limit_s=LIMIT_S,
    )
    assert status == 0, text
    (run,) = home.glob("results/null-engine/runs/*/*/*/*/*/performance_run/manifest.json")
    assert json.loads(run.read_text(encoding="utf-8"))["result"]["dropped_variables"] >= 4
