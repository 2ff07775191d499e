"""Make the virtual environment of a lock, once per content of the lock."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from steps import ROOT
from steps.base import venv
from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Workspace
from steps.base.step import main
from steps.config.schema import EnvironmentConfig
from steps.plan.plan import environment_directory

PROBE_LIMIT_S = 600.0


def step(
    config: EnvironmentConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes packages.json (name to version). Raises UserError if a package can't be had."""
    # Commands of an environment carry its path: the real one, for .envs may be a link.
    directory = (ROOT / environment_directory(ROOT, config.name)).resolve()
    python = directory / "bin" / "python"
    if not venv.is_whole(directory):
        _make(directory, inputs["lock"], config, console)
    packages = _packages(python)
    text = json.dumps(packages, indent=1, sort_keys=True) + "\n"
    (workspace.directory / "packages.json").write_text(text, encoding="utf-8")
    workspace.result = {"name": config.name, "python": sys.version.split()[0]}


def _make(directory: Path, lock: Path, config: EnvironmentConfig, console: Console) -> None:
    packages = sum(1 for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line)
    progress = console.progress(f"environment {lock.stem}", packages, "packages")

    def heard(line: str) -> None:
        print(line, end="")
        if line.startswith("Collecting "):
            progress.add()

    try:
        venv.make(
            directory, [lock], ROOT, console.log, heard, lambda python: _probe(python, config)
        )
    finally:
        progress.close()


def _probe(python: Path, config: EnvironmentConfig) -> None:
    for module in config.probes:
        done = subprocess.run(
            [str(python), "-c", f"import {module}"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_LIMIT_S,
        )
        print(done.stdout, done.stderr)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(
                f"environment {config.name}: `import {module}` fails with {last!r}; "
                "README.md, section Trouble, lists the usual causes"
            )


def _packages(python: Path) -> dict[str, str]:
    listing = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=True,
        timeout=PROBE_LIMIT_S,
    )
    return {entry["name"]: entry["version"] for entry in json.loads(listing.stdout)}


if __name__ == "__main__":
    main("environment", EnvironmentConfig, step)
