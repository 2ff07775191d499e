"""`./reproduce` through a real Slurm of four nodes on this machine.

The engine computes nothing, so stages take seconds; its hardware pretends to have accelerators,
which Slurm then hands out.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.plan import make
from steps.record import Manifest
from tests.conftest import ROOT, copy_project, edit
from tests.interpreter import interpreter
from tests.scheduler.cluster import Slurm, ask, running, unusable, wait_for

LIMIT_S = 300
ACCELERATOR = (
    "{model: AMD Instinct MI325X, memory_gb: 256, architecture: gfx942, count_per_node: 8}"
)
SITE = """\
# @package _global_
defaults: [override /scheduler: slurm, _self_]
scheduler: {partition: main, gpu_types: {null-engine: mi325x}}
"""
RUNS = "results/null-engine/runs/null-engine/rehearsal/none/bf16"
SOON = ("--slurm-init-seconds-before-status-checks", "2")

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(unusable() is not None, reason=f"no Slurm: {unusable()}"),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running(tmp_path_factory.mktemp("slurm"), ["mi325x", "mi325x", "mi325x", None]) as started:
        yield started


@pytest.fixture(scope="module")
def clone(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = copy_project(tmp_path_factory.mktemp("clone"))
    (home / ".envs").symlink_to(ROOT / ".envs")
    hardware = home / "conf/hardware/null-engine.yaml"
    edit(hardware, "accelerator: null", f"accelerator: {ACCELERATOR}")
    (home / "conf/site").mkdir(exist_ok=True)
    (home / "conf/site/local.yaml").write_text(SITE, encoding="utf-8")
    plan = make(home, ["experiment=null-engine"])
    for job in plan.jobs:
        if job.step in ("performance_run", "performance_check"):
            interpreter(plan, job, tmp_path_factory.mktemp("made"))
    return home


def command(clone: Path, *overrides: str, until: str = "performance_check") -> list[str]:
    words = [str(clone / "reproduce"), "experiment=null-engine", *overrides]
    return [*words, "--", "--until", until, *SOON]


def reproduce(clone: Path, *overrides: str) -> tuple[int, str]:
    done = subprocess.run(
        command(clone, *overrides),
        cwd=clone,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout


class Started:
    """A ./reproduce whose performance run of this scenario has begun on a node."""

    def __init__(self, clone: Path, scenario: str, *overrides: str) -> None:
        self.process = subprocess.Popen(
            command(clone, f"scenario={scenario}", *overrides),
            cwd=clone,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        log = f"{RUNS}/{scenario}/.performance_run.*.tmp/mlperf_log_detail.txt"
        wait_for(lambda: bool(list(clone.glob(log))), "LoadGen's start", LIMIT_S)

    def ended(self) -> tuple[int, str]:
        text, _ = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, text


def performance_runs() -> list[dict[str, str]]:
    """What Slurm has of each, the newest last."""
    listed = ask("scontrol", "--oneliner", "show", "job").splitlines()
    fields = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in listed]
    return [job for job in fields if job.get("Comment", "").startswith("rule_performance_run")]


def test_runs_have_nodes_of_their_own_and_their_results_hold_elsewhere(clone: Path) -> None:
    status, text = reproduce(clone)
    assert status == 0, text
    runs = performance_runs()
    assert {run["NodeList"] for run in runs} == {"n1", "n2", "n3"}, "n4 has no accelerators"
    whole = {"NumCPUs": "8", "TresPerJob": "gres:gpu:mi325x:8", "OverSubscribe": "NO"}
    for run in runs:
        assert {key: run[key] for key in whole} == whole and "mem=4000M" in run["TRES"]
    assert text.count("performance_run null-engine/") == 3 and " runs on n1 " in text
    for overrides in ([], ["scheduler=local"]):
        plan = make(clone, ["experiment=null-engine", *overrides])
        made = [job for job in plan.jobs if job.step == "performance_run"]
        assert [Manifest.read(clone / job.output).damage() for job in made] == [[], [], []]
    status, text = reproduce(clone)
    assert (status, len(performance_runs())) == (0, 3), text
    assert "null-engine: 0 of 25 jobs to run" in text


def test_a_node_that_vanishes_is_said_and_the_next_command_goes_on(
    clone: Path, slurm: Slurm
) -> None:
    longer = "length.min_duration_ms=12000"
    begun = Started(clone, "Server", longer)
    node = performance_runs()[-1]["NodeList"]
    slurm.vanish(node)
    status, text = begun.ended()
    assert status != 0
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "its node vanished" in errors[0] and f" on {node})" in errors[0]
    assert "Traceback" not in text
    status, text = reproduce(clone, "scenario=Server", longer)
    assert status == 0, text
    assert f"runs on {node} " not in text


def test_what_a_killed_command_left_on_a_node_is_waited_for_and_holds(clone: Path) -> None:
    longer = "length.min_duration_ms=8000"
    before = len(performance_runs())
    begun = Started(clone, "Interactive", longer)
    os.killpg(begun.process.pid, signal.SIGKILL)
    status, text = reproduce(clone, "scenario=Interactive", longer)
    assert status == 0, text
    assert "an earlier ./reproduce left jobs" in text
    assert len(performance_runs()) == before + 1


def test_engines_of_one_system_run_on_all_its_nodes(clone: Path) -> None:
    several = ["cluster=2-nodes", "hardware.engine.placement.cluster=slurm", "scenario=Offline"]
    status, text = reproduce(clone, *several, "hardware.accelerator=null")
    assert status == 0, text
    assert performance_runs()[-1]["NumNodes"] == "2"
    result = Manifest.read(clone / RUNS / "Offline/performance_run/manifest.json").result
    assert len(result["engines"]) == 4 and all(engine["samples"] for engine in result["engines"])


def test_a_terminated_command_takes_its_jobs_out_of_the_queue(clone: Path) -> None:
    begun = Started(clone, "Offline", "length.min_duration_ms=60000")
    at = time.monotonic()
    begun.process.terminate()
    status, text = begun.ended()
    assert status == 130 and time.monotonic() - at < 60
    assert "were cancelled; ./reproduce goes on" in text
    wait_for(lambda: not ask("squeue", "--noheader"), "an empty queue")


def test_a_partition_that_is_none_is_named(clone: Path) -> None:
    status, text = reproduce(clone, "scheduler.partition=gpu")
    assert status == 1
    assert text == "error: Slurm has no partition gpu; set scheduler.partition to one of main\n"


def test_a_controller_that_is_gone_is_said_before_anything_starts(
    clone: Path, slurm: Slurm
) -> None:
    slurm.stop_controller()
    status, text = reproduce(clone, "scenario=Server", "length.min_duration_ms=13000")
    assert status == 1
    assert text.startswith("error: Slurm doesn't answer (") and "nothing was started" in text
