"""Nodes of two kinds in one job of a real Slurm, in images, and a job that others are preferred to.

The nodes are this machine; each node's amd-smi says what was recorded of its kind. Snakemake can't
follow a heterogeneous job without accounting: commands are those of `./reproduce plan --script`.
"""

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.base.record import Manifest
from tests.conftest import reproduce
from tests.e2e.test_container_engines import BASE, require_base
from tests.e2e.test_images_on_nodes import PER_NODE, PODMAN, checkout
from tests.hosts import RECORDED
from tests.schedule.cluster import Slurm, ask, running, unusable
from tests.schedule.test_on_slurm import SOON, Started, runs

LIMIT_S = 900
SITE = """\
# @package _global_
defaults: [override /scheduler: slurm, _self_]
scheduler:
  partition: main
  gpu_types: {acme-mi325x: mi325x, acme-mi300x: mi300x}
  share: {cpus: 4, memory_gb: 3}
"""
ASKED = (
    *("experiment=null-engine", "system=acme", "scenario=Offline", "runtime=podman"),
    *(f"hardware.containers.engine.base={BASE}", "hardware.engine.placement.cluster=slurm"),
)

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(unusable() is not None, reason=f"no Slurm: {unusable()}"),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Node n1 has MI325X, n2 has MI300X."""
    tools = tmp_path_factory.mktemp("tools")
    for node, kind in (("n1", "mi325x"), ("n2", "mi300x")):
        (tools / node).symlink_to(RECORDED / f"amd-smi-static-8x{kind}.json")
    listed = f'[ "$1" = static ] && cat {shlex.quote(str(tools))}/"$SLURMD_NODENAME"'
    for name, does in {"amd-smi": listed, "rocm-smi": "exit 1"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{does}\n", encoding="ascii")
        (tools / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        with running(tmp_path_factory.mktemp("slurm"), ["mi325x", "mi300x"], urgent=True) as found:
            yield found


@pytest.fixture
def clone(slurm: Slurm, tmp_path: Path) -> Path:
    device = tmp_path / "kfd"
    os.mknod(device, 0o20666, os.makedev(1, 3))
    home = checkout(tmp_path / "clone", device)
    (home / "conf/site").mkdir(exist_ok=True)
    (home / "conf/site/local.yaml").write_text(SITE, encoding="utf-8")
    return home


def up_to(script: str, step: str) -> str:
    """A plan's script until the command of a step's first job."""
    lines = script.splitlines()
    last = next(n for n, line in enumerate(lines) if " of " in line and f": {step} " in line)
    return "\n".join([*lines[: last + 2], ""])


@pytest.mark.long
def test_a_heterogeneous_job_has_each_kinds_engines_in_images(clone: Path, tmp_path: Path) -> None:
    require_base(PODMAN)
    status, text = reproduce(clone, "plan", "--script", *ASKED)
    assert status == 0, text
    script = tmp_path / "all.sh"
    script.write_text(up_to(text, "performance_run"), encoding="utf-8")
    parts = ["-N1", "--exclusive", "--gpus-per-node=mi325x:8", ":"]
    parts += ["-N1", "--exclusive", "--gpus-per-node=mi300x:8"]
    done = subprocess.run(
        ["salloc", "--mem=0", *parts, "bash", str(script)],
        cwd=clone,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (run,) = clone.glob("results/null-engine/runs/acme/*/*/*/Offline/performance_run")
    result = Manifest.read(run / "manifest.json").result
    assert [engine["name"].partition("(")[2] for engine in result["engines"]] == [
        *["n1, acme-mi325x)"] * PER_NODE,
        *["n2, acme-mi300x)"] * PER_NODE,
    ]
    assert [engine["accelerators"] for engine in result["engines"]] == ["0", "1"] * 2
    assert all(engine["samples"] for engine in result["engines"])
    assert "built as sha256:" in result["engine"]["image"]


def test_a_preempted_job_is_named_and_what_had_ended_is_kept(clone: Path) -> None:
    """The next command runs what was cut short, and nothing else."""
    arguments = ["experiment=null-engine", "scenario=Server,Offline"]
    # Its engines answer 1,618 samples/s, and fewer samples would end too soon.
    arguments += ["length.min_duration_ms=15000", "set.Offline.target_qps=1800"]
    asked = [*arguments, "--", "--until", "performance_check", *SOON]
    before = {run["JobId"] for run in runs()}
    begun = Started(clone, asked, "results/null-engine/runs/null-engine/rehearsal/none/bf16/*")
    urgent = ["-p", "urgent", "-N2", "--exclusive", "--wrap", "sleep 5", "-o", "/dev/null"]
    ask("sbatch", *urgent)
    status, text = begun.ended(LIMIT_S)
    assert status != 0 and "Traceback" not in text
    *errors, last = [line for line in text.splitlines() if line.startswith("error: ")]
    assert errors and last.startswith("error: nothing is left to wait for but jobs that"), text
    assert all("others were preferred to it (Slurm job " in line for line in errors), text
    first = [run for run in runs() if run["JobId"] not in before]
    assert {run["JobState"] for run in first} <= {"PREEMPTED", "COMPLETED"}
    status, text = reproduce(clone, *asked, limit_s=LIMIT_S)
    assert status == 0, text
    own = [run for run in runs() if run["JobId"] not in before]
    assert len([run for run in own if run["JobState"] == "COMPLETED"]) == 2
    assert len(own) == 2 + len(errors)
