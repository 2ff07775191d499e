"""`./reproduce report --published [--round v5.1] [--output DIRECTORY]`.

The driver's environment can't draw: the page is made by the analysis environment.
"""

import argparse
import os
import sys
from pathlib import Path

from steps.errors import UserError
from steps.plan import environment_directory

ROOT = Path(__file__).resolve().parent.parent.parent
COMPLETE = "complete"
"""File of a finished environment, as steps/environment.py leaves it."""


def command(arguments: list[str]) -> int:
    """Becomes the analysis environment's Python. Raises UserError if there is none."""
    parser = argparse.ArgumentParser(prog="./reproduce report", description=__doc__)
    parser.add_argument("--published", action="store_true", help="of AMD's published results")
    parser.add_argument("--round", help="default: the last that has a table")
    parser.add_argument("--output", type=Path, help="default: results/published/ROUND/report")
    given = parser.parse_args(arguments)
    if not given.published:
        raise UserError(
            "the report of an experiment is part of ./reproduce experiment=NAME; "
            "`report --published` makes that of AMD's published results"
        )
    from steps.published import table

    name = given.round or table.rounds()[-1]
    table.load(name)  # a wrong round is told at once
    output = (given.output or ROOT / f"results/published/{name}/report").absolute()
    python = analysis_python(ROOT)
    os.chdir(ROOT)
    sys.stdout.flush()
    rest = ["-m", "steps.report.published", "--round", name, "--output", str(output)]
    os.execv(python, [str(python), *rest])


def analysis_python(root: Path) -> Path:
    """The interpreter of the environment that draws; raises UserError saying how to get it."""
    directory = root / environment_directory(root, "analysis")
    python = directory / "bin" / "python"
    if not (directory / COMPLETE).is_file():
        make_environment(root)
    if not python.is_file():
        raise UserError(f"{directory} is damaged; delete it and run the command again")
    return python


def make_environment(root: Path) -> None:
    """By the step that every run makes it with, into the place where runs look for it."""
    import subprocess

    log = root / "results/published/environment.log"
    manifest = root / "results/published/environment/manifest.json"
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
