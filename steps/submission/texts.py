"""Documents of the tree. People read them at three in the morning: exact, short, complete."""

import json
import shlex
from collections.abc import Iterable, Sequence

from steps.record import MANIFEST, Manifest, sha256_file
from steps.schema import Cell, SubmissionConfig
from steps.submission.verdicts import Evidence


def measurement_readme(found: Evidence, config: SubmissionConfig) -> str:
    """How this measurement was made, with the commands that make it again."""
    cell, run = found.cell, found.performance_run
    overrides = [
        f"experiment={config.experiment}",
        *(o for o in config.overrides if not o.startswith("experiment=")),
    ]
    command = shlex.join(["./reproduce", "run", *overrides])
    engine, rows = run.result["engine"], []
    for name, manifest in (
        ("performance", run),
        ("accuracy", found.accuracy_run),
        ("compliance", found.compliance_run),
    ):
        rows.append(
            f"| {name} | {manifest.result['samples']:,} | {manifest.result['duration_s']:.1f} "
            f"| `{sha256_file(manifest.directory / MANIFEST)[:16]}` |"
        )
    return "\n".join(
        [
            f"# {cell.system_id}, {cell.benchmark}, {cell.scenario}",
            "",
            "All of it, from a clone of Reprise:",
            "",
            f"    {command}",
            "",
            "Each run is one process; these are the commands, with their whole configuration:",
            "",
            *_commands(found),
            "",
            "| run | samples | seconds | sha256 of its manifest |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Engine: {engine['name']} {engine['version']} on {engine['device']}. "
            f"LoadGen {run.result['loadgen_version']}.",
            f"Weights: manifest `{run.inputs['model']}`. Dataset: manifest "
            f"`{run.inputs['dataset']}`.",
            *_departures(cell),
            "",
        ]
    )


def code_readme(benchmark: str, config: SubmissionConfig) -> str:
    """What the checker wants under code/: where the implementation is."""
    return (
        f"# {benchmark}\n\nThe implementation is Reprise, the repository this tree was made with: "
        "`steps/sut/` drives the engine from LoadGen, `conf/` holds every setting, and\n"
        f"`./reproduce experiment={config.experiment}` makes this tree.\n"
    )


def calibration(cells: Sequence[Cell]) -> str:
    """How weights were quantized, per precision."""
    lines = ["# Calibration and quantization", ""]
    seen = {cell.precision: cell for cell in cells}
    for precision, cell in seen.items():
        lines.append(
            f"- {precision}: {cell.measurement.weight_transformations}; no calibration data is "
            f"used{', and the format is emulated' if cell.emulated else ''}."
        )
    return "\n".join(lines) + "\n"


def not_for_submission(config: SubmissionConfig) -> str:
    """The notice at the root of a tree that departs from the rules."""
    departures: dict[str, list[str]] = {}
    for cell in config.cells:
        for departure in cell.departures:
            departures.setdefault(departure, []).append(cell.key)
    lines = [
        "# This tree may not be submitted",
        "",
        f"It departs from the rules of round {config.round}:",
        "",
    ]
    lines += [f"- {what} ({_listed(cells)})" for what, cells in departures.items()]
    return "\n".join(lines) + "\n"


def _commands(found: Evidence) -> Iterable[str]:
    for step, manifest in (
        ("compliance_run", found.compliance_run),
        ("accuracy_run", found.accuracy_run),
        ("performance_run", found.performance_run),
    ):
        yield f"    python -m steps.{step} --config {shlex.quote(_config(manifest))}"


def _config(manifest: Manifest) -> str:
    return json.dumps(manifest.config, sort_keys=True, separators=(",", ":"))


def _departures(cell: Cell) -> list[str]:
    if not cell.departures:
        return []
    return ["", "Departures from the rules:", "", *(f"- {what}" for what in cell.departures)]


def _listed(cells: Sequence[str]) -> str:
    return cells[0] if len(cells) == 1 else f"{len(cells)} cells"
