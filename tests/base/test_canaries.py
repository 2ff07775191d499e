"""A token and host names, put where a user has them: in nothing that `./reproduce` logs or prints.

What a submission may hold is in tests/submit/test_confidential.py, layers of images are in
tests/e2e/test_container_engines.py.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from steps.plan.make import make
from tests.conftest import ROOT, copy_project, edit, reproduce
from tests.interpreter import interpreter

TOKEN = "hf_canaryCanaryCanaryCanary"
FILED = "canary-of-a-file-0123"
USUAL = ".cache/huggingface/token"
"""Where a library finds a token in a user's home, which a measured step sees."""

HERE = "canary-host-0417.example.com"
THERE = "canary-head-0418"
CANARIES = (TOKEN, FILED, HERE, HERE.partition(".")[0], THERE)
SITE = f"""\
# @package _global_
# on {HERE}, with {TOKEN}
defaults: [null-engine, _self_]
system: {{name: acme, submitter: Acme, engine: {{environment: {{MASTER: "{THERE}:29500"}}}}}}
"""
CHOSEN = ("experiment=null-engine", "scenario=Offline", "--site", "acme.yaml")
UNTIL = ("--", "--until", "performance_check", "describe")
RUN = "results/null-engine/runs/acme/rehearsal/none/bf16/Offline/performance_run"
LOG = "results/null-engine/logs/acme/rehearsal/none/bf16/Offline/performance_run.log"
LIMIT_S = 300
START = '    execute("PerformanceOnly"'
LEAK = f"""\
    import os, platform
    secret = open(os.path.expanduser("~/{USUAL}")).read()
    print("a library says:", platform.node(), secret, dict(os.environ), config, flush=True)
{START}"""

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.geteuid() != 0, reason="to give a host another name needs root"),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a remote, in which LoadGen's runs write all they know to their log."""
    home = copy_project(tmp_path_factory.mktemp("clone"))
    (home / ".envs").symlink_to(ROOT / ".envs")
    remote = f"https://me:{TOKEN}@{THERE}/reprise.git"
    for words in (["init", "--quiet"], ["remote", "add", "origin", remote]):
        subprocess.run(["git", *words], cwd=home, check=True, timeout=LIMIT_S)
    (home / "acme.yaml").write_text(SITE, encoding="utf-8")
    (home / "user" / USUAL).parent.mkdir(parents=True)
    (home / "user" / USUAL).write_text(f"{FILED}\n", encoding="utf-8")
    edit(home / "steps/run/performance_run.py", START, LEAK)
    plan = make(home, list(CHOSEN[:2]))
    for job in plan.jobs:
        if job.step in ("performance_run", "performance_check"):
            interpreter(plan, job, tmp_path_factory.mktemp("made"))
    return home


def told_everything(clone: Path) -> tuple[int, str]:
    return reproduce(
        clone,
        *(*CHOSEN, *UNTIL),
        limit_s=LIMIT_S,
        environment={
            "HF_TOKEN": TOKEN,
            "HOME": str(clone / "user"),
            "XDG_CACHE_HOME": str(clone / "user/.cache"),
            "SLURM_JOB_NAME": THERE,
            "MASTER_ADDR": THERE,
        },
        through=("unshare", "--uts", "sh", "-c", f'hostname {HERE} && exec "$@"', "sh"),
    )


def logs(clone: Path) -> list[Path]:
    """What LoadGen, steps and their engines wrote."""
    found = [*clone.glob("results/**/*.log"), *clone.glob("results/**/mlperf_log_*")]
    return [path for path in found if path.is_file()]


def holding(clone: Path) -> list[str]:
    return [
        str(path.relative_to(clone))
        for path in logs(clone)
        if any(canary.encode() in path.read_bytes() for canary in CANARIES)
    ]


def test_no_log_and_no_line_of_the_terminal_holds_a_canary(clone: Path) -> None:
    status, text = told_everything(clone)
    assert status == 0, text
    assert TOKEN not in text and FILED not in text
    said = (clone / LOG).read_text(encoding="utf-8")
    assert "a library says: REDACTED_HOST REDACTED_TOKEN" in said and "REDACTED_HOST:29500" in said
    assert len(logs(clone)) >= 6 and holding(clone) == []


def test_negative_control_without_redaction_one_does(clone: Path) -> None:
    edit(clone / "steps/base/confidential/logs.py", "    if counts:", "    if counts and False:")
    shutil.rmtree(clone / RUN)
    status, text = told_everything(clone)
    assert status == 0, text
    assert holding(clone) == [LOG]
