"""The Snakefile by snakemake's own lint."""

import subprocess

from steps.plan.frozen import snakemake
from steps.plan.plan import freeze
from tests.conftest import ROOT, planned

LIMIT_S = 120
NOT_APPLICABLE = "Specify a conda environment or container for each rule."
"""Environments are jobs of the plan here, made from locks, and each rule runs in the one it needs:
`environment` is an input of every heavy step."""


def test_snakemake_lint_has_no_complaint() -> None:
    path = freeze(planned(), ROOT)
    binary, flag, plan, *_ = snakemake(path)
    done = subprocess.run(
        [binary, flag, plan, "--lint"], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
    )
    lines = done.stderr.splitlines()
    assert any(line.startswith("Lints for rule") for line in lines), done.stderr
    complaints = {line.strip("* ").rstrip(":") for line in lines if line.startswith("    * ")}
    assert complaints == {NOT_APPLICABLE}, done.stderr
