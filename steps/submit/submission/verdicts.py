"""A cell's evidence: its runs, and the verdicts on exactly these runs."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import MANIFEST, Manifest, canonical_json, sha256_file
from steps.config import verdicts
from steps.config.results import result_of
from steps.config.run_results import RunResult
from steps.config.submission import Cell

SUBMITTABLE_ENGINES = ("vllm", "diffusers")
"""Engines that compute; a null engine's results never enter a tree."""


@dataclass(frozen=True)
class Verdict:
    """A run and the verdict on it."""

    run: Manifest
    check: Manifest

    @property
    def ran(self) -> RunResult:
        """The run's result."""
        return result_of(self.run, RunResult)


@dataclass(frozen=True)
class Evidence:
    """Manifests of one cell, checked against each other; `compliance` by the test's name.

    `digest` changes with the cell and with any of them.
    """

    cell: Cell
    performance: Verdict
    accuracy: Verdict
    compliance: Mapping[str, Verdict]
    digest: str

    def verdicts(self) -> Iterator[tuple[str, Verdict]]:
        """Runs with their names: "performance", "accuracy" or the test's."""
        yield "performance", self.performance
        yield "accuracy", self.accuracy
        yield from self.compliance.items()


def gather(cell: Cell, inputs: Mapping[str, Path]) -> Evidence:
    """Raises UserError if a verdict is on another run or not valid, an engine is null, or a run is
    of a dress rehearsal and this is none."""
    digests: dict[str, str] = {}

    def verdict(subject: str, test: str = "") -> Verdict:
        roles = [cell.role(f"{subject}_{kind}", test) for kind in ("run", "check")]
        run, check = (Manifest.read(inputs[role]) for role in roles)
        for role in roles:
            digests[role] = sha256_file(inputs[role])
        if check.inputs["run"] != sha256_file(run.directory / MANIFEST):
            raise UserError(f"{check.directory} is a verdict on another run; re-run ./reproduce")
        if why := verdicts.of(check, verdicts.Verdict).why:
            raise UserError(
                f"no tree is made with a result that isn't valid: {cell.key} {test or subject}: "
                f"{why}"
            )
        if run.config.get("rehearsal") and not cell.replaced:
            raise UserError(
                f"{run.directory} was made in a {run.config['rehearsal']}, on small weights and "
                "data, and no submission takes it; measure it again without scale="
            )
        engine = result_of(run, RunResult).engine.name
        if engine not in SUBMITTABLE_ENGINES:
            raise UserError(
                f"{run.directory} was made by the {engine} engine, whose results can't be "
                "submitted; choose an engine that computes"
            )
        return Verdict(run, check)

    performance, accuracy = verdict("performance"), verdict("accuracy")
    compliance = {test: verdict("compliance", test) for test in cell.compliance_tests}
    whole = canonical_json([cell.model_dump(mode="json"), digests])
    digest = hashlib.sha256(whole.encode()).hexdigest()
    return Evidence(cell, performance, accuracy, compliance, digest)


def require_unchanged(found: Evidence) -> None:
    """Raises UserError if a file of a run or verdict differs from its manifest."""
    for _, verdict in found.verdicts():
        verdict.run.require_whole()
        verdict.check.require_whole()
