"""What a cell can show: its runs, and verdicts on these very runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.errors import UserError
from steps.record import MANIFEST, Manifest, sha256_file
from steps.schema import Cell

SUBMITTABLE_ENGINES = ("vllm",)
"""Engines that compute what they are asked; a null engine's results never enter a tree."""


@dataclass(frozen=True)
class Evidence:
    """Manifests of one cell, checked against each other."""

    cell: Cell
    performance_run: Manifest
    accuracy_run: Manifest
    compliance_run: Manifest
    performance_check: Manifest
    accuracy_check: Manifest
    compliance_check: Manifest


def gather(cell: Cell, inputs: Mapping[str, Path]) -> Evidence:
    """Raises UserError if a verdict is of another run, a file has changed or an engine is null."""
    steps = [
        f"{subject}_{kind}"
        for subject in ("performance", "accuracy", "compliance")
        for kind in ("run", "check")
    ]
    found = Evidence(cell, **{step: Manifest.read(inputs[f"{cell.key}/{step}"]) for step in steps})
    for subject in ("performance", "accuracy", "compliance"):
        run: Manifest = getattr(found, f"{subject}_run")
        check: Manifest = getattr(found, f"{subject}_check")
        if check.inputs["run"] != sha256_file(run.directory / MANIFEST):
            raise UserError(f"{check.directory} is a verdict on another run; re-run ./reproduce")
        for complaint in (*run.damage(), *check.damage()):
            raise UserError(f"{complaint}; delete {run.directory} and re-run")
        engine = run.result["engine"]["name"]
        if engine not in SUBMITTABLE_ENGINES:
            raise UserError(
                f"{run.directory} was made by the {engine} engine, whose results can't be "
                "submitted; choose an engine that computes"
            )
    return found
