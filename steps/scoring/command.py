"""`./reproduce score BENCHMARK`: accuracy.txt of a full accuracy log, without a network."""

import os
from pathlib import Path

from steps.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent


def command(arguments: list[str]) -> int:
    """Becomes the analysis environment's Python, which has what scores answers."""
    from steps.plan import environment_directory

    python = ROOT / environment_directory(ROOT, "analysis") / "bin/python"
    if not python.is_file():
        raise UserError(
            "the analysis environment isn't made yet; ./reproduce makes it with everything else "
            f"it needs, or: python3.11 -m venv {python.parent.parent} && {python} -m pip install "
            f"--no-deps -r {ROOT}/envs/analysis.lock"
        )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    os.execve(python, [str(python), "-m", "steps.scoring", *arguments], environment)
