"""`./reproduce plan --script`: the commands are those that Snakemake starts, and do the same."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from steps.base.record import Manifest
from steps.commands.cli import main
from steps.plan.plan import Job, Plan
from tests.conftest import ROOT, copy_project, planned, reproduce
from tests.interpreter import interpreter

NULL = ("experiment=null-engine", "scenario=Offline")
LIMIT_S = 300


def commands(text: str) -> dict[str, list[str]]:
    """Words of each job's command, by its output."""
    found = {}
    for line in text.splitlines():
        if " --output " in line:
            split = shlex.split(line)
            found[split[split.index("--output") + 1]] = split
    return found


def printed(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    assert main(["plan", "--script", *overrides]) == 0
    return capsys.readouterr().out


def of(plan: Plan, step: str) -> Job:
    return next(job for job in plan.jobs if job.step == step)


def test_every_due_job_has_its_command_in_the_plans_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = printed(capsys, "experiment=amd-v5.1", "system=amd-mi300x")
    plan = planned("experiment=amd-v5.1", "system=amd-mi300x")
    found = commands(text)
    order = [job.output for job in plan.jobs]
    assert list(found) == [output for output in order if output in found]
    assert of(plan, "performance_run").output in found
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    run = found[of(plan, "performance_run").output]
    assert run[:4] == [run[0], "-m", "steps.base.variables", "measured"]
    assert run[run.index("--config") + 1] == of(plan, "performance_run").config
    assert "steps.machine.runtime" in run, "it runs in an image"
    assert "on a node with 8 × mi300x" in text


def test_a_clusters_runs_name_their_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "experiment=mangoboost-v5.1", "system=mangoboost-mi300x-mi325x")
    assert "on 4 nodes with 8 × mi300x and 2 nodes with 8 × mi325x" in text


def test_what_places_a_pod_keeps_the_variables_of_a_cloud(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pods = ("experiment=amd-v5.1", "system=amd-mi300x", "scheduler=kubernetes")
    user = "scheduler.user={uid: 1000, gid: 1000}"
    run = commands(printed(capsys, *pods, user))[of(planned(*pods, user), "performance_run").output]
    assert run[1:4] == ["-m", "steps.base.variables", "driver"]
    assert "steps.schedule.kubernetes.place" in run


def test_what_is_dropped_is_worked_out_where_the_command_runs() -> None:
    """The shell that prints a script isn't the one that runs it."""
    environment = {"PATH": "/bin:/usr/bin", "VLLM_USE_V1": "0", "HOME": "/"}
    done = subprocess.run(
        [sys.executable, "-m", "steps.base.variables", "measured", "env"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "VLLM_USE_V1" not in done.stdout and "PATH=/bin:/usr/bin" in done.stdout


@pytest.mark.engine
def test_a_script_is_what_snakemake_does(tmp_path: Path) -> None:
    """The same words, and the results hold for ./reproduce."""
    home = copy_project(tmp_path / "clone")
    (home / ".envs").symlink_to(ROOT / ".envs")
    plan = planned(*NULL)
    interpreter(plan, of(plan, "performance_run"), tmp_path / "made")
    interpreter(plan, of(plan, "performance_check"), tmp_path / "made")
    status, text = reproduce(home, "plan", "--script", *NULL, limit_s=LIMIT_S)
    assert status == 0, text
    asked = (*NULL, "--", "--dry-run", "--printshellcmds")
    _, theirs = reproduce(home, *asked, limit_s=LIMIT_S)
    ours = commands(text)
    for output, one in commands(theirs).items():
        assert tail(one) == tail(ours[output])
    assert ours.keys() == commands(theirs).keys()
    head, *blocks = text.split("\n\n")
    wanted = [b for b in blocks if not re.search(r": (submission|provenance|accuracy|compl)", b)]
    script = "\n\n".join([head, *wanted])
    done = subprocess.run(
        ["bash"], input=script, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    checked = home / of(plan, "performance_check").output
    assert Manifest.read(checked).result["holds"]
    _, after = reproduce(home, "plan", *NULL, limit_s=LIMIT_S)
    line = next(line for line in after.splitlines() if line.startswith("performance_run"))
    assert "holds" in line


def tail(words_of_one: list[str]) -> list[str]:
    """From the step's module on; what is before differs by the shell's variables."""
    return words_of_one[words_of_one.index("--config") - 1 :]
