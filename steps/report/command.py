"""`./reproduce report --published [--round v5.1] [--output DIRECTORY]`.

The driver's environment can't draw: the page is made by the analysis environment.
"""

import argparse
import os
import sys

from steps import ROOT
from steps.machine.tools import environment_python


def command(given: argparse.Namespace) -> int:
    """Becomes the analysis environment's Python. Raises UserError if there is none."""
    from steps.mlperf.published import table

    name = given.round or table.rounds()[-1]
    table.load(name)  # a wrong round is told at once
    output = (given.output or ROOT / f"results/published/{name}/report").absolute()
    python = environment_python(ROOT, "analysis")
    os.chdir(ROOT)
    sys.stdout.flush()
    rest = ["-m", "steps.report.published", "--round", name, "--output", str(output)]
    os.execv(python, [str(python), *rest])
