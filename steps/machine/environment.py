"""Make the virtual environment of a lock, once per content of the lock."""

import json
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from steps import ROOT
from steps.base import venv
from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.installer import Heard
from steps.base.locks import LOADGEN, overlaid
from steps.base.record import Manifest, Workspace
from steps.base.step import main
from steps.config import options
from steps.config.artifacts import EnvironmentConfig
from steps.config.environments import EnvironmentResult
from steps.config.results import result_of
from steps.machine import engine_options, v0_repairs
from steps.plan.plan import Job, Plan, environment_directory

PROBE_LIMIT_S = 600.0
LISTING = "packages.json"


def step(
    config: EnvironmentConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes packages.json (name to version) and, where vLLM is, engine.json (what it takes).

    Raises UserError if a package can't be installed.
    """
    directory, locks = _directory(ROOT, config.name), _locks(inputs)
    if not _holds(directory, locks):
        _make(directory, locks, config, console)
    (workspace.directory / LISTING).write_text(_listing(directory), encoding="utf-8")
    if taken := engine_options.of_environment(directory / "bin/python"):
        (workspace.directory / options.FILE).write_text(taken, encoding="utf-8")
    workspace.result = EnvironmentResult(name=config.name, python=_python()).dumped()


def restore(plan: Plan, due: Collection[str], root: Path) -> None:
    """Before jobs start, make the environments again that they need and that are gone, or no longer
    match their lock. Results measured in them stay.

    `due`: outputs of the jobs that will run. Raises UserError if one can't be restored as it was.
    """
    needed = {job.environment for job in plan.jobs if job.output in due and not job.container}
    for job in plan.jobs:
        if job.step != "environment" or job.output in due or not (root / job.output).is_file():
            continue
        directory, locks = _directory(root, job.key), _of_job(job, root)
        if environment_directory(root, job.key) in needed and not _holds(directory, locks):
            print(f"environment {job.key} is gone or damaged: made again", flush=True)
            _make_again(directory, job, root)


def _make_again(directory: Path, job: Job, root: Path) -> None:
    config = EnvironmentConfig.model_validate_json(job.config)
    made = Manifest.read(root / job.output)
    python_then = result_of(made, EnvironmentResult).python
    if python_then != _python():
        raise UserError(
            f"environment {job.key} had Python {python_then} when results were made "
            f"in it, and this is {_python()}; run with that one (PYTHON=... after deleting "
            f".envs/driver-*), or delete {made.directory}: what needs it is then made again"
        )
    log = root / job.log
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as words:

        def check(python: Path) -> None:
            _prove(python, _of_job(job, root), config, words.write)

        venv.make(directory, _of_job(job, root), root, log, words.write, check)
    if _listing(directory) != made.file(LISTING).read_text(encoding="utf-8"):
        raise UserError(
            f"{directory} has other packages than {made.directory / LISTING} says; delete "
            f"{made.directory}: what needs it is then made again"
        )


def _directory(root: Path, name: str) -> Path:
    """Commands of an environment carry its path: the real one, for .envs may be a link."""
    return (root / environment_directory(root, name)).resolve()


def _locks(inputs: Mapping[str, Path]) -> list[Path]:
    """Its own, and that of the round's LoadGen, which has the last word."""
    return [inputs[role] for role in ("lock", LOADGEN) if role in inputs]


def _of_job(job: Job, root: Path) -> list[Path]:
    return _locks({role: root / path for role, path in job.inputs.items()})


def _holds(directory: Path, locks: Sequence[Path]) -> bool:
    """Whether it is complete and exactly its locks; if not, it loses its mark."""
    if venv.is_whole(directory) and not venv.differences(directory / "bin/python", locks):
        return True
    (directory / venv.COMPLETE).unlink(missing_ok=True)
    return False


def _make(
    directory: Path, locks: Sequence[Path], config: EnvironmentConfig, console: Console
) -> None:
    wanted = sum(1 for entry in overlaid(locks) if entry.name)
    progress = console.progress(f"environment {config.name}", wanted, "packages")
    seen = 0

    def heard(line: str) -> None:
        """uv names large packages when they are downloaded, and says when all are installed."""
        nonlocal seen
        print(line, end="", flush=True)
        if line.startswith((" Downloaded ", "Installed ")):
            new = 1 if line.startswith(" ") else wanted - seen
            seen += new
            progress.add(new)

    def check(python: Path) -> None:
        _prove(python, locks, config, print)

    try:
        venv.make(directory, locks, ROOT, console.log, heard, check)
    finally:
        progress.close()


def _prove(python: Path, locks: Sequence[Path], config: EnvironmentConfig, heard: Heard) -> None:
    if v0_repairs.needed(locks):
        v0_repairs.repair(python.parent.parent)
    _probe(python, config, heard)


def _probe(python: Path, config: EnvironmentConfig, heard: Heard) -> None:
    for module in config.probes:
        done = subprocess.run(
            [str(python), "-I", "-c", f"import {module}"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_LIMIT_S,
        )
        heard(f"{done.stdout}{done.stderr}\n")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(
                f"environment {config.name}: `import {module}` fails with {last!r}; "
                "docs/how-to/trouble.md lists the usual causes"
            )


def _listing(directory: Path) -> str:
    found = dict(venv.listed(directory / "bin/python"))
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def _python() -> str:
    return sys.version.split()[0]


if __name__ == "__main__":
    main("environment", EnvironmentConfig, step)
