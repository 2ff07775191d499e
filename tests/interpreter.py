"""The environments that engine tests run in."""

import fcntl
import json
import subprocess
from pathlib import Path

from steps.plan.plan import Job, Plan
from tests.conftest import ROOT
from tests.running import command

LIMIT_S = 900


def interpreter(plan: Plan, job: Job, scratch: Path) -> str:
    """The Python that a job runs in; what isn't there is made as a run makes it, in minutes.

    Tests share environments, also between processes: the first one makes it, the others wait.
    """
    (making,) = [
        made
        for made in plan.jobs
        if made.step == "environment" and job.environment.startswith(f".envs/{made.key}-")
    ]
    directory = ROOT / job.environment
    directory.parent.mkdir(exist_ok=True)
    with open(directory.parent / f"{making.key}.making", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            inputs = {role: Path(path) for role, path in making.inputs.items()}
            done = subprocess.run(
                command("environment", json.loads(making.config), inputs, scratch / "environment"),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
            )
            assert done.returncode == 0, done.stderr
    return str(directory / "bin/python")
