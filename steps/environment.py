"""Make the virtual environment of a lock, once per content of the lock."""

import json
import shutil
import subprocess
import sys
import threading
import venv
from collections.abc import Mapping
from pathlib import Path

from steps.command import ROOT, main
from steps.console import Console
from steps.errors import UserError
from steps.plan import environment_directory
from steps.record import Workspace
from steps.schema import EnvironmentConfig

INSTALL_LIMIT_S = 3600.0
PROBE_LIMIT_S = 600.0
WHEELS = "wheels"
"""Directory of a checkout that came as a bundle: no index is asked then."""

COMPLETE = "complete"
"""File that a finished environment carries: a venv can't be moved into place, so it is marked."""


def step(
    config: EnvironmentConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes packages.json (name to version). Raises UserError if a package can't be had."""
    # Commands of an environment carry its path: the real one, for .envs may be a link.
    directory = (ROOT / environment_directory(ROOT, config.name)).resolve()
    python = directory / "bin" / "python"
    if not (directory / COMPLETE).exists():
        shutil.rmtree(directory, ignore_errors=True)
        _create(directory)
        _install(python, inputs["lock"], console)
        _probe(python, config)
        (directory / COMPLETE).touch()
    packages = _packages(python)
    text = json.dumps(packages, indent=1, sort_keys=True) + "\n"
    (workspace.directory / "packages.json").write_text(text, encoding="utf-8")
    workspace.result = {"name": config.name, "python": sys.version.split()[0]}


def _create(directory: Path) -> None:
    try:
        venv.create(directory, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"{directory} can't be made ({error}); on Debian install python3-venv"
        ) from error


def _install(python: Path, lock: Path, console: Console) -> None:
    """The lock lists everything, so nothing is resolved: what is not in it is not installed."""
    packages = sum(1 for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line)
    progress = console.progress(f"environment {lock.stem}", packages, "packages")
    command = [str(python), "-m", "pip", "install", "--no-deps", "--no-input"]
    if (ROOT / WHEELS).is_dir():
        command += ["--no-index", "--find-links", str(ROOT / WHEELS)]
    command += ["-r", str(lock)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    timer = threading.Timer(INSTALL_LIMIT_S, process.kill)
    timer.start()
    errors = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="")
            if line.startswith("Collecting "):
                progress.add()
            if line.startswith("ERROR: "):
                errors.append(line.removeprefix("ERROR: ").strip())
        status = process.wait(INSTALL_LIMIT_S)
    finally:
        timer.cancel()
        process.kill()
        progress.close()
    if status:
        reason = errors[-1] if errors else f"pip ended with status {status}"
        raise UserError(f"{lock} can't be installed: {reason}; see {console.log}")


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
