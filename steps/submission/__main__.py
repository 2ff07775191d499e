"""Assemble the submission tree: nothing is measured here, only checked, copied and explained."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from steps.command import main
from steps.console import Console
from steps.record import Manifest, Workspace
from steps.schema import SubmissionConfig
from steps.submission import texts
from steps.submission.verdicts import Evidence, gather
from steps.truncate import truncated

TREE = "submission"
AUDIT = "audit"
NOT_FOR_SUBMISSION = "NOT-FOR-SUBMISSION.md"
RUN_FILES = ("mlperf_log_summary.txt", "mlperf_log_detail.txt")


def step(
    config: SubmissionConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes submission/ (v5.1 layout) and audit/ (untruncated accuracy logs)."""
    tree = workspace.directory / TREE
    evidence = [gather(cell, inputs) for cell in config.cells]
    divisions = sorted({cell.division for cell in config.cells})
    for division in divisions:
        home = tree / division / config.submitter
        within = [found for found in evidence if found.cell.division == division]
        _add_division(division, within, inputs, home, workspace.directory / AUDIT, config)
    departures = sorted({d for cell in config.cells for d in cell.departures})
    if departures:
        _write(tree / NOT_FOR_SUBMISSION, texts.not_for_submission(config))
    workspace.result = {
        "divisions": divisions,
        "submitter": config.submitter,
        "departures": departures,
        "may_be_submitted": not departures,
        "files": sum(1 for path in tree.rglob("*") if path.is_file()),
    }


def _add_division(
    division: str,
    evidence: Sequence[Evidence],
    inputs: Mapping[str, Path],
    home: Path,
    audit: Path,
    config: SubmissionConfig,
) -> None:
    cells = [found.cell for found in evidence]
    for found in evidence:
        for package in found.cell.packages:
            _add_package(found, package.name, home, audit, config)
    for system in {cell.system_id: cell.system for cell in cells}.items():
        _add_system(*system, inputs, home)
    mapping = {package.name: package.official for cell in cells for package in cell.packages}
    for benchmark in mapping:
        _write(home / "code" / benchmark / "README.md", texts.code_readme(benchmark, config))
    if division == "open":
        _write(home / "model_mapping.json", json.dumps(mapping, indent=1) + "\n")
    _write(home / "calibration.md", texts.calibration(cells))


def _add_package(
    found: Evidence, benchmark: str, home: Path, audit: Path, config: SubmissionConfig
) -> None:
    """A cell's evidence under one of the benchmarks that it is submitted as."""
    cell = found.cell
    place = Path(cell.system_id) / benchmark / cell.scenario
    results = home / "results" / place
    for name in (*RUN_FILES, "mlperf_log_accuracy.json"):
        _copy(found.performance_run.file(name), results / "performance" / "run_1" / name)
    for name in RUN_FILES:
        _copy(found.accuracy_run.file(name), results / "accuracy" / name)
    full = found.accuracy_run.file("mlperf_log_accuracy.json")
    _copy(full, audit / place / full.name)
    short, digest = truncated(full)
    (results / "accuracy" / full.name).write_bytes(short)
    scores = found.accuracy_check.file("accuracy.txt").read_text(encoding="utf-8")
    _write(results / "accuracy" / "accuracy.txt", f"{scores}\nhash={digest}\n")
    measurements = home / "measurements" / place
    _copy(found.performance_run.file("user.conf"), measurements / "user.conf")
    measured = json.dumps(cell.measurement.model_dump(), indent=1) + "\n"
    _write(measurements / f"{cell.system_id}.json", measured)
    _write(measurements / "README.md", texts.measurement_readme(found, config))
    for test in cell.compliance_tests:
        compliance = home / "compliance" / place / test
        for name in ("verify_accuracy.txt", "accuracy/mlperf_log_accuracy.json"):
            _copy(found.compliance_check.file(name), compliance / name)


def _add_system(system_id: str, system: str, inputs: Mapping[str, Path], home: Path) -> None:
    described = Manifest.read(inputs[f"describe/{system}"])
    _copy(described.file("system.json"), home / "systems" / f"{system_id}.json")


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main("submission", SubmissionConfig, step)
