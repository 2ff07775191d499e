"""Environments for commands without a plan: the driver's environment can neither draw nor score."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from steps.base import installer
from steps.base.errors import UserError
from steps.base.venv import is_whole
from steps.plan.plan import environment_directory

PROBES: Mapping[str, tuple[str, ...]] = {
    "analysis": ("bokeh", "jinja2"),
    "images": ("torch", "transformers", "scipy"),
}
"""The module of each environment whose import proves it."""

LIMIT_S = 3 * installer.LIMIT_S
"""pip, uv's packages and their probes, each with the installer's own limit."""


def environment_python(root: Path, name: str) -> Path:
    """The interpreter of an environment of `PROBES`, made if absent. Raises UserError."""
    directory = root / environment_directory(root, name)
    if not is_whole(directory):
        make_environment(root, name)
    return directory / "bin" / "python"


def make_environment(root: Path, name: str) -> None:
    """Made by the same step and in the same place as for runs."""
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
    command = [sys.executable, "-m", "steps.machine.environment", *words]
    try:
        done = subprocess.run(command, cwd=root, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"the {name} environment wasn't made in {LIMIT_S / 3600:.0f} h; {log} says how far it "
            "came"
        ) from error
    if done.returncode:
        raise UserError(f"the {name} environment can't be made; {log} says why")
