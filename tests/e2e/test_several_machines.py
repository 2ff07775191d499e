"""Machines with different accelerators, one plan: each runs its cells, one brings all together.

The accelerators are what amd-smi prints, and on these machines it prints what is recorded; engines
are null engines. Everything else is as a user has it.
"""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, copy_project, edit, reproduce

pytestmark = pytest.mark.e2e

HARDWARE = """\
defaults:
  - null-engine
  - _self_
name: acme-{name}
accelerator: {{model: AMD Instinct {model}, memory_gb: {memory}, architecture: gfx942,
  count_per_node: 8}}
partitions: {{compute: SPX, memory: NPS1}}
engine:
  arguments: {{max_num_seqs: 16}}
  placement: {{device_variable: HIP_VISIBLE_DEVICES, pinned: true}}
"""
SYSTEM = """\
# @package _global_
defaults:
  - null-engine
  - override /hardware: acme-{name}
  - _self_
system:
  name: acme-{name}
  target_qps: {{Offline: 200, Server: 100, Interactive: 100}}
"""
EXPERIMENT = """\
# @package _global_
defaults:
  - null-engine
  - _self_
experiment_name: two
cells:
  - {system: acme-mi300x, benchmark: rehearsal, precision: bf16, scenario: [Offline]}
  - {system: acme-mi325x, benchmark: rehearsal, precision: bf16, scenario: [Offline]}
"""
ASKED = ("experiment=two", "compression.required_gate=none")
LIMIT_S = 900


def machine(home: Path, model: str) -> tuple[Path, dict[str, str]]:
    """A checkout, and the environment of a machine whose amd-smi lists eight of a model."""
    clone = copy_project(home / "clone")
    (clone / ".envs").symlink_to(ROOT / ".envs")
    edit(clone / "steps/submit/submission/verdicts.py", '"vllm", "diff', '"vllm", "null", "diff')
    for name, memory in (("mi300x", 192), ("mi325x", 256)):
        text = HARDWARE.format(name=name, model=name.upper(), memory=memory)
        (clone / f"conf/hardware/acme-{name}.yaml").write_text(text, encoding="utf-8")
        text = SYSTEM.format(name=name)
        (clone / f"conf/system/acme-{name}.yaml").write_text(text, encoding="utf-8")
    (clone / "conf/experiment/two.yaml").write_text(EXPERIMENT, encoding="utf-8")
    tools = home / "tools"
    tools.mkdir()
    listed = shlex.quote(str(ROOT / f"tests/recorded/amd-smi-static-8x{model}.json"))
    for name, does in {"amd-smi": f"cat {listed}", "rocm-smi": "exit 1"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{does}\n", encoding="ascii")
        (tools / name).chmod(0o755)
    return clone, {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}


def runs(clone: Path) -> set[str]:
    return {path.name for path in (clone / "results/two/runs").iterdir()}


def test_each_machine_runs_its_cells_and_one_brings_them_together(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    here, environment = machine(first, "mi300x")
    status, text = reproduce(here, *ASKED, environment=environment, limit_s=LIMIT_S)
    assert status == 1 and "1 of 2 cells valid" in text, text
    assert "not run here" in text and "8 × AMD Instinct MI325X" in text
    assert runs(here) == {"acme-mi300x"}
    assert not list((here / "results/artifacts/describe").glob("acme-mi325x*"))
    assert not (here / "results/two/package").exists()
    found = json.loads(
        next((here / "results/two/runs").glob("**/performance_run/manifest.json")).read_text()
    )["result"]
    assert found["accelerators"]["listed"] == "8 × AMD Instinct MI300X"
    assert [engine["accelerators"] for engine in found["engines"]] == ["0", "1"]
    caches = {path.name for path in (here / "results/caches").glob("*/*")}
    assert caches == {"engine-0", "engine-1"}

    there, environment = machine(second, "mi325x")
    status, text = reproduce(there, *ASKED, environment=environment, limit_s=LIMIT_S)
    assert status == 1 and runs(there) == {"acme-mi325x"}, text

    damaged = tmp_path / "damaged"
    shutil.copytree(there / "results", damaged)
    log = next(damaged.glob("two/runs/**/performance_run/mlperf_log_summary.txt"))
    log.write_text("Samples per second: 1000000\n", encoding="utf-8")
    status, text = reproduce(here, "collect", str(damaged), *ASKED, limit_s=LIMIT_S)
    assert status == 1 and "can't be brought here, and nothing was" in text, text
    assert runs(here) == {"acme-mi300x"}

    status, text = reproduce(here, "collect", str(there), *ASKED, limit_s=LIMIT_S)
    assert status == 0 and "2 of 2 cells valid" in text, text
    assert runs(here) == {"acme-mi300x", "acme-mi325x"}
    systems = (here / "results/two/package/submission").glob("*/*/results/*")
    assert len({path.name for path in systems}) == 2
    status, text = reproduce(here, "collect", str(there), *ASKED, limit_s=LIMIT_S)
    assert status == 0 and "0 results brought here" in text, text
    status, text = reproduce(here, "verify", *ASKED, limit_s=LIMIT_S)
    assert status == 0, text
