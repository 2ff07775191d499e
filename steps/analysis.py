"""The analysis environment for commands without a plan: the driver's can neither draw nor score."""

import subprocess
import sys
from pathlib import Path

from steps.environment import COMPLETE
from steps.errors import UserError
from steps.plan import environment_directory


def analysis_python(root: Path) -> Path:
    """The interpreter of the analysis environment, made if it isn't there; raises UserError."""
    directory = root / environment_directory(root, "analysis")
    python = directory / "bin" / "python"
    if not (directory / COMPLETE).is_file():
        make_environment(root)
    if not python.is_file():
        raise UserError(f"{directory} is damaged; delete it and run the command again")
    return python


def make_environment(root: Path) -> None:
    """By the step that every run makes it with, into the place where runs look for it."""
    log = root / "results/analysis/environment.log"
    manifest = root / "results/analysis/environment/manifest.json"
    log.parent.mkdir(parents=True, exist_ok=True)
    print("making the analysis environment, once (a minute)", file=sys.stderr)
    arguments = {
        "--config": '{"name": "analysis", "probes": ["bokeh", "jinja2"]}',
        "--input": "lock=envs/analysis.lock",
        "--output": str(manifest),
        "--log": str(log),
    }
    words = [word for pair in arguments.items() for word in pair]
    done = subprocess.run(
        [sys.executable, "-m", "steps.environment", *words], cwd=root, check=False
    )
    if done.returncode:
        raise UserError(f"the analysis environment can't be made; {log} has pip's words")
