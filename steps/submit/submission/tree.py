"""The files of a submission tree, in the layout of its round: copied, truncated, explained."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from steps.base.record import Manifest
from steps.config.submission import Cell, SubmissionConfig
from steps.mlperf.loadgen import ANSWERS, RUN_FILES, USER_CONF
from steps.mlperf.rounds import Layout
from steps.mlperf.truncate import truncated
from steps.submit.submission import texts
from steps.submit.submission.parts import link
from steps.submit.submission.verdicts import Evidence
from steps.submit.validate.tree import Place

TREE = "submission"
AUDIT = "audit"
EXTRA = ("images/", "videos/")
"""Directories of an accuracy verdict that a submission has beside accuracy.txt."""


def place_of(cell: Cell, benchmark: str, config: SubmissionConfig, layout: Layout) -> Place:
    """A cell's place under one of the benchmarks that it is submitted as."""
    return Place(layout, cell.division, config.submitter, cell.system_id, benchmark, cell.scenario)


def folders(place: Place) -> list[str]:
    """Directories of the package with only this result."""
    own = dict.fromkeys((place.results, place.measurements, place.compliance))
    return [*(f"{TREE}/{folder}" for folder in own), _audit(place)]


def _audit(place: Place) -> str:
    return f"{AUDIT}/{place.home}/{place.system}/{place.model}/{place.scenario}"


def add_result(found: Evidence, place: Place, package: Path, config: SubmissionConfig) -> None:
    """Write everything of one result; the untruncated accuracy log goes beside the tree."""
    tree, run = package / TREE, found.performance.run
    results = tree / place.results
    for name in (*RUN_FILES, ANSWERS):
        _copy(run.file(name), results / "performance/run_1" / name)
    _add_accuracy(found, results / "accuracy", package / _audit(place))
    measurements = tree / place.measurements
    _copy(run.file(USER_CONF), measurements / USER_CONF)
    measured = json.dumps(found.cell.measurement.model_dump(), indent=1) + "\n"
    _write(measurements / place.layout.described(place.system), measured)
    _write(measurements / "README.md", texts.measurement_readme(found, config))
    for test, verdict in found.compliance.items():
        for name in verdict.check.files:
            _copy(verdict.check.file(name), tree / place.compliance / test / name)


def _add_accuracy(found: Evidence, folder: Path, audit: Path) -> None:
    run, check = found.accuracy.run, found.accuracy.check
    for name in RUN_FILES:
        _copy(run.file(name), folder / name)
    full = run.file(ANSWERS)
    link(full, audit / ANSWERS)
    short, digest = truncated(full)
    (folder / ANSWERS).write_bytes(short)
    scores = check.file("accuracy.txt").read_text(encoding="utf-8")
    _write(folder / "accuracy.txt", f"{scores}\nhash={digest}\n")
    for name in check.files:
        if name.startswith(EXTRA):
            _copy(check.file(name), folder / name)


def add_division(
    evidence: Sequence[Evidence],
    inputs: Mapping[str, Path],
    home: Path,
    config: SubmissionConfig,
    layout: Layout,
) -> None:
    """Write a submitter's documents for all results of a division."""
    cells = [found.cell for found in evidence]
    descriptions = {
        cell.system_id: Manifest.read(inputs[f"describe/{cell.system}"]).file("system.json")
        for cell in cells
    }
    for system_id, description in descriptions.items():
        own = [found for found in evidence if found.cell.system_id == system_id]
        noted = [*texts.degraded(own), *texts.repeated(own)]
        _describe(description, noted, home / "systems" / f"{system_id}.json")
    mapping = {package.name: package.official for cell in cells for package in cell.packages}
    for benchmark in mapping:
        _write(home / layout.code / benchmark / "README.md", texts.code_readme(benchmark, config))
    if home.parent.name == "open":
        _write(home / "model_mapping.json", json.dumps(mapping, indent=1) + "\n")
    _write(home / "documentation/calibration.md", texts.calibration(cells))
    statement = texts.bandwidth(evidence, descriptions, config.round)
    _write(home / "documentation/bandwidth.md", statement)


def _describe(source: Path, noted: Sequence[str], destination: Path) -> None:
    """The description, with remarks about its runs in its notes, if any."""
    if not noted:
        _copy(source, destination)
        return
    fields = json.loads(source.read_text(encoding="utf-8"))
    notes = [fields.get("hw_notes", ""), *noted]
    fields["hw_notes"] = "; ".join(note for note in notes if note)
    _write(destination, json.dumps(fields, indent=2, ensure_ascii=False) + "\n")


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
