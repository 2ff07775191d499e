"""`./reproduce` through a real Slurm of four nodes on this machine.

The engine computes nothing, so stages take seconds; its hardware has accelerators, which Slurm then
hands out. On the nodes amd-smi and rocm-smi say that they are there: what was recorded.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.base.record import Manifest
from steps.plan.make import make
from steps.run.placing.seen import Question, Seen
from tests import amd_nodes
from tests.conftest import ROOT, copy_project, edit, reproduce
from tests.interpreter import interpreter
from tests.schedule.cluster import Slurm, ask, running, unusable, wait_for

LIMIT_S = 300
LONG_LIMIT_S = 1800
ACCELERATOR = (
    "{model: AMD Instinct MI325X, memory_gb: 256, architecture: gfx942, count_per_node: 8}"
)
SITE = """\
# @package _global_
defaults: [override /scheduler: slurm, _self_]
scheduler:
  partition: main
  gpu_types: {null-engine: mi325x}
  share: {cpus: 4, memory_gb: 3}
"""
RUNS = "results/null-engine/runs/null-engine/rehearsal/none/bf16"
CHECKED = ("performance_check",)
SOON = ("--slurm-init-seconds-before-status-checks", "2")

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(unusable() is not None, reason=f"no Slurm: {unusable()}"),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Jobs have the PATH of the command that submits them, so all nodes have the tools."""
    path = amd_nodes.install(tmp_path_factory.mktemp("tools") / "bin", amd_nodes.whole("mi325x"))
    kinds = ["mi325x", "mi325x", "mi325x", None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path)
        with running(tmp_path_factory.mktemp("slurm"), kinds) as started:
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


def chosen(*overrides: str, until: tuple[str, ...] = CHECKED) -> list[str]:
    return ["experiment=null-engine", *overrides, "--", "--until", *until, *SOON]


def on_slurm(clone: Path, *overrides: str, until: tuple[str, ...] = CHECKED) -> tuple[int, str]:
    return reproduce(clone, *chosen(*overrides, until=until), limit_s=LIMIT_S)


class Started:
    """A ./reproduce of which a run has begun on a node; its logs are in one of `runs`."""

    def __init__(self, clone: Path, arguments: list[str], runs: str = f"{RUNS}/*") -> None:
        self.process = subprocess.Popen(
            [str(clone / "reproduce"), *arguments],
            cwd=clone,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        log = f"{runs}/.*_run.*.tmp/mlperf_log_detail.txt"
        wait_for(lambda: bool(list(clone.glob(log))), "LoadGen's start", self._still_there)

    def _still_there(self) -> None:
        if self.process.poll() is not None:
            pytest.fail(self.ended()[1])

    def ended(self, limit_s: float = LIMIT_S) -> tuple[int, str]:
        text, _ = self.process.communicate(timeout=limit_s)
        return self.process.returncode, text


def runs() -> list[dict[str, str]]:
    """What Slurm has of each of LoadGen's runs, the newest last."""
    listed = ask("scontrol", "--oneliner", "show", "job").splitlines()
    fields = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in listed]
    return [job for job in fields if "_run_wildcards_" in job.get("Comment", "")]


AS_THE_PLUGIN = """
import os, subprocess, sys
for name in list(os.environ):
    if name.startswith("SLURM_") and name != "SLURM_JOB_ID":
        del os.environ[name]
from steps.run.placing.lines import by_srun, nodes_of_job
for part, node in nodes_of_job():
    asked = by_srun(part, node)
    said = subprocess.run(asked, input=sys.argv[1] + "\\n", text=True, stdout=subprocess.PIPE)
    print(part, node, said.stdout, sep="|", end="")
"""
"""Asks every node of a job, without the variables that Snakemake's plugin takes from a job."""


@pytest.mark.parametrize(
    ("asked", "parts"),
    [(["-N2"], ["None", "None"]), (["-N1", "--gpus-per-node=8", ":", "-N2"], ["0", "1", "1"])],
)
def test_an_agent_is_started_on_every_node_of_a_job(
    slurm: Slurm, asked: list[str], parts: list[str]
) -> None:
    """Of a heterogeneous one, too, which Snakemake can follow only where jobs are accounted for."""
    done = subprocess.run(
        ["salloc", *asked, sys.executable, "-c", AS_THE_PLUGIN, Question().model_dump_json()],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    said = [line.split("|", 2) for line in done.stdout.splitlines()]
    assert [part for part, _, _ in said] == parts
    nodes = [node for _, node, _ in said]
    assert len(set(nodes)) == len(nodes) and set(nodes) <= set(slurm.nodes)
    assert [Seen.model_validate_json(answer).name for _, _, answer in said] == nodes


def test_six_runs_on_three_nodes_of_which_one_vanishes(clone: Path, slurm: Slurm) -> None:
    """Said in one sentence; the next command runs what is missing, elsewhere, and nothing else."""
    until = ("performance_check", "accuracy_run")
    begun = Started(clone, chosen(until=until))
    lost = next(run for run in runs() if run["JobState"] == "RUNNING")
    slurm.vanish(lost["NodeList"])
    status, text = begun.ended()
    assert status != 0
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "its node vanished" in errors[0], text
    assert f" on {lost['NodeList']})" in errors[0] and "Traceback" not in text
    first = runs()
    status, text = on_slurm(clone, until=until)
    assert status == 0, text
    assert len(runs()) == 7, "six, and the lost one again"
    assert "NODE_FAIL" in {run["JobState"] for run in first}
    held = [run for run in runs() if run["JobState"] == "COMPLETED"]
    assert len(held) == 6 and len({run["NodeList"] for run in held}) >= 2
    whole = {"NumCPUs": "8", "TresPerJob": "gres:gpu:mi325x:8", "OverSubscribe": "NO"}
    for run in runs():
        assert run["NodeList"] in ("n1", "n2", "n3"), "n4 has no accelerators"
        assert {key: run[key] for key in whole} == whole and "mem=4000M" in run["TRES"]


@pytest.mark.long
def test_vllm_on_three_nodes_of_which_one_vanishes(tmp_path: Path, slurm: Slurm) -> None:
    """The rehearsal in three precisions, to its end; Offline, as nodes share this machine."""
    home = copy_project(tmp_path / "clone")
    (home / ".envs").symlink_to(ROOT / ".envs")
    (home / "conf/site").mkdir(exist_ok=True)
    (home / "conf/site/local.yaml").write_text(SITE, encoding="utf-8")
    arguments = ["precision=bf16,fp8,mxfp4", "scenario=Offline", "--", *SOON]
    before = {run["JobId"] for run in runs()}
    begun = Started(
        home, arguments, "results/rehearsal/runs/rehearsal-cpu/rehearsal/none/*/Offline"
    )
    lost = next(run for run in runs() if run["JobState"] == "RUNNING")
    slurm.vanish(lost["NodeList"])
    status, text = begun.ended(LONG_LIMIT_S)
    assert status != 0 and "its node vanished" in text, text
    status, text = reproduce(home, *arguments, limit_s=LONG_LIMIT_S)
    assert status == 0, text
    own = [run for run in runs() if run["JobId"] not in before]
    held = [run for run in own if run["JobState"] == "COMPLETED"]
    assert len(own) == 13 and len(held) == 12, "four a precision, and the lost one again"
    assert len({run["NodeList"] for run in held}) >= 3
    assert (home / "results/rehearsal/report/index.html").exists()


def test_what_a_killed_command_left_on_a_node_is_waited_for_and_holds(clone: Path) -> None:
    longer = "length.min_duration_ms=8000"
    before = len(runs())
    begun = Started(clone, chosen("scenario=Interactive", longer))
    os.killpg(begun.process.pid, signal.SIGKILL)
    status, text = on_slurm(clone, "scenario=Interactive", longer)
    assert status == 0, text
    assert "an earlier ./reproduce left jobs" in text
    assert len(runs()) == before + 1
    status, text = on_slurm(clone, "scenario=Interactive", "length.min_duration_ms=9000")
    assert status == 0, text
    assert len(runs()) == before + 2, "what was left is of its own plan only"


def test_engines_of_one_system_run_on_all_its_nodes(clone: Path) -> None:
    several = ["cluster=2-nodes", "hardware.engine.placement.cluster=slurm", "scenario=Offline"]
    status, text = on_slurm(clone, *several, "hardware.accelerator=null")
    assert status == 0, text
    assert runs()[-1]["NumNodes"] == "2"
    result = Manifest.read(clone / RUNS / "Offline/performance_run/manifest.json").result
    assert len(result["engines"]) == 4 and all(engine["samples"] for engine in result["engines"])


def test_a_terminated_command_takes_its_jobs_out_of_the_queue(clone: Path) -> None:
    longer = "length.min_duration_ms=60000"
    begun = Started(clone, chosen("scenario=Offline", longer))
    at = time.monotonic()
    begun.process.terminate()
    status, text = begun.ended()
    assert status == 128 + signal.SIGTERM and time.monotonic() - at < 60
    assert "were cancelled; ./reproduce goes on" in text
    wait_for(lambda: not ask("squeue", "--noheader"), "an empty queue")


def test_a_partition_that_is_none_is_named(clone: Path) -> None:
    status, text = on_slurm(clone, "scheduler.partition=gpu")
    assert status == 1
    assert text == "error: Slurm has no partition gpu; set scheduler.partition to one of main\n"


def test_a_job_that_slurm_does_not_take_is_said_in_slurms_words(clone: Path) -> None:
    status, text = on_slurm(
        clone, "scheduler.reservation=nobodys", "scenario=Server", "length.min_duration_ms=11000"
    )
    assert status == 1
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: performance_run: Slurm refused the job: ")
    assert line.endswith("Requested reservation is invalid")


def test_a_controller_that_is_gone_is_said_before_anything_starts(
    clone: Path, slurm: Slurm
) -> None:
    slurm.stop_controller()
    status, text = on_slurm(clone, "scenario=Server", "length.min_duration_ms=13000")
    assert status == 1
    assert text.startswith("error: Slurm doesn't answer (") and "nothing was started" in text
