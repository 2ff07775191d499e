"""`./reproduce score BENCHMARK`: accuracy.txt of a full accuracy log, without a network."""

import os

from steps.command import ROOT


def command(arguments: list[str]) -> int:
    """Becomes the analysis environment's Python, which has what scores answers."""
    from steps.analysis import analysis_python

    python = analysis_python(ROOT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    os.execve(python, [str(python), "-m", "steps.scoring", *arguments], environment)
