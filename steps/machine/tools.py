"""Environments for commands without a plan: the driver's can neither draw nor score."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from steps.base.errors import UserError
from steps.base.venv import is_whole
from steps.plan.plan import environment_directory

PROBES: Mapping[str, tuple[str, ...]] = {
    "analysis": ("bokeh", "jinja2"),
    "images": ("torch", "transformers", "scipy"),
}
"""What is imported of an environment to prove it."""


def environment_python(root: Path, name: str) -> Path:
    """The interpreter of an environment of `PROBES`, made if it isn't there; raises UserError."""
    directory = root / environment_directory(root, name)
    if not is_whole(directory):
        make_environment(root, name)
    return directory / "bin" / "python"


def make_environment(root: Path, name: str) -> None:
    """By the step that every run makes it with, into the place where runs look for it."""
    home = root / "results" / name
    log, manifest = home / "environment.log", home / "environment/manifest.json"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"making the {name} environment, once (some seconds)", file=sys.stderr)
    arguments = {
        "--config": json.dumps({"name": name, "probes": PROBES[name]}),
        "--input": f"lock=envs/{name}.lock",
        "--output": str(manifest),
        "--log": str(log),
    }
    words = [word for pair in arguments.items() for word in pair]
    done = subprocess.run(
        [sys.executable, "-m", "steps.machine.environment", *words], cwd=root, check=False
    )
    if done.returncode:
        raise UserError(f"the {name} environment can't be made; {log} says why")
