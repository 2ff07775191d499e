"""`./reproduce score BENCHMARK`: accuracy.txt of a full accuracy log, without a network."""

import os

from steps import ROOT

IMAGES = "stable-diffusion-xl"
"""The benchmark whose answers are pictures, which are scored in their own environment."""


def command(arguments: list[str]) -> int:
    """Replaces this process by the Python of the environment that scores the answers."""
    from steps.machine.tools import environment_python

    python = environment_python(ROOT, "images" if IMAGES in arguments else "analysis")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    os.execve(python, [str(python), "-m", "steps.judge.scoring", *arguments], environment)
