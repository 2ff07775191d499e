"""Documents of the tree. People read them at three in the morning: exact, short, complete."""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from steps.base.record import MANIFEST, Manifest, Record, canonical_json, sha256_file
from steps.config import verdicts
from steps.config.submission import Cell, SubmissionConfig
from steps.config.verdicts import PerformanceVerdict
from steps.mlperf.rounds import load
from steps.plan.registry import FOLDER, STEPS
from steps.submit.submission.verdicts import Evidence

CALIBRATION_SAMPLES = "num_calib_data"
"""Quark's option: how many samples it calibrates on."""

UNRECORDED = "an earlier version of Reprise, which recorded no commit"

UNCALIBRATED = "simulated"
"""The rehearsal's tool, which uses only the weights."""


def measurement_readme(found: Evidence, config: SubmissionConfig) -> str:
    """How this measurement was made, with the commands that make it again."""
    cell, run = found.cell, found.performance.run
    command = shlex.join(["./reproduce", "run", *config.overrides])
    ran = found.performance.ran
    engine, rows = ran.engine, []
    for name, verdict in found.verdicts():
        each = verdict.ran
        rows.append(
            f"| {name} | {each.tries} | {each.samples:,} | {each.duration_s:.1f} "
            f"| `{sha256_file(verdict.run.directory / MANIFEST)[:16]}` |"
        )
    return "\n".join(
        [
            f"# {cell.system_id}, {cell.benchmark}, {cell.scenario}",
            "",
            "All of it, from a clone of Reprise:",
            "",
            f"    {command}",
            "",
            "One of its runs, with what it needs:",
            "",
            *_commands(found, config),
            "",
            "Their whole configuration:",
            "",
            *_configurations(found),
            "",
            "Tries: how often a run was measured with these settings, this result included.",
            "",
            "| run | tries | samples | seconds | sha256 of its manifest |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Engine: {engine.name} {engine.version} on {engine.device}"
            f"{' in ' + engine.image if engine.image else ''}. LoadGen {ran.loadgen_version}.",
            f"Weights: manifest `{run.inputs['model']}`. Dataset: manifest "
            f"`{run.inputs['dataset']}`.",
            f"Made by {'; '.join(_makers(found))}.",
            *_departures(cell),
            "",
        ]
    )


def _makers(found: Evidence) -> list[str]:
    """The versions that made its runs, each once."""
    records = [Record.read(verdict.run.directory / MANIFEST) for _, verdict in found.verdicts()]
    versions = (record.origin.version for record in records)
    return list(dict.fromkeys(UNRECORDED if one is None else str(one) for one in versions))


def degraded(evidence: Iterable[Evidence]) -> list[str]:
    """Problems of engines during any of these runs, a sentence each."""
    found = []
    for each in evidence:
        for name, verdict in each.verdicts():
            where = f"{each.cell.benchmark} {each.cell.scenario} {name}"
            found += [f"{where}: {what}" for what in verdict.ran.degraded]
    return found


def repeated(evidence: Iterable[Evidence]) -> list[str]:
    """Which of these results were measured more than once, a sentence each."""
    return [
        f"{each.cell.benchmark} {each.cell.scenario} {name}: try {tries}, "
        f"{tries - 1} earlier with the same settings"
        for each in evidence
        for name, verdict in each.verdicts()
        if (tries := verdict.ran.tries) > 1
    ]


def code_readme(benchmark: str, config: SubmissionConfig) -> str:
    """The file that the checker requires under code/: where the implementation is."""
    return (
        f"# {benchmark}\n\nThe implementation is Reprise, the repository this tree was made with: "
        "`steps/run/sut/` drives the engine from LoadGen, `conf/` holds every setting, and\n"
        f"`{shlex.join(['./reproduce', *config.overrides])}` makes this tree.\n"
    )


def calibration(cells: Sequence[Cell]) -> str:
    """How weights were quantized, per benchmark and precision."""
    lines = ["# Calibration and quantization", ""]
    seen = {(cell.benchmark, cell.precision): cell for cell in cells}
    for (benchmark, precision), cell in seen.items():
        emulated = ", and the format is emulated" if cell.emulated else ""
        lines.append(
            f"- {benchmark}, {precision}: {cell.measurement.weight_transformations}, "
            f"{_calibrated(cell)}{emulated}."
        )
    return "\n".join(lines) + "\n"


def _calibrated(cell: Cell) -> str:
    tool, options = cell.quantization.tool, cell.quantization.options
    if tool == UNCALIBRATED:
        return "no calibration data is used"
    if CALIBRATION_SAMPLES not in options:
        return f"by {tool}; nothing is configured of what it was calibrated on: add it here"
    told = ", ".join(f"{name} {json.dumps(value)}" for name, value in sorted(options.items()))
    return (
        f"by {tool} on {options[CALIBRATION_SAMPLES]:,} samples of the "
        f"benchmark's calibration set ({told})"
    )


def bandwidth(
    evidence: Sequence[Evidence], descriptions: Mapping[str, Path], round_name: str
) -> str:
    """The statement that data reaches the accelerators as fast as the results need it.

    `descriptions` maps system ids to their JSON. The bytes of a sample are the round's.
    """
    lines = [
        "# Bandwidth",
        "",
        "Bytes per second that each result moves between host and accelerators: its samples per "
        "second times the bytes of the longest sample, in and out.",
        "",
        "| system | benchmark | scenario | samples/s | in, B/s | out, B/s |",
        "|---|---|---|---|---|---|",
    ]
    for found in evidence:
        rate = verdicts.of(found.performance.check, PerformanceVerdict).samples_per_second
        for package in found.cell.packages:
            moved = load(round_name).benchmarks[package.official].bytes_per_sample
            if moved is None:
                continue
            lines.append(
                f"| {found.cell.system_id} | {package.name} | {found.cell.scenario} | {rate:.2f} "
                f"| {rate * moved['in']:,.0f} | {rate * moved['out']:,.0f} |"
            )
    lines += ["", "What the systems have:", ""]
    for system_id, path in sorted(descriptions.items()):
        fields = json.loads(path.read_text(encoding="utf-8"))
        lines.append(f"- {system_id}: {fields.get('accelerator_host_interconnect', 'N/A')}")
    return "\n".join(lines) + "\n"


def digest_of(evidence: str, config: SubmissionConfig) -> str:
    """The digest of a result's documents: of its evidence, and the command of its tree."""
    said = [evidence, config.experiment, config.round, config.submitter, list(config.overrides)]
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()


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
    replaced = dict.fromkeys(one for cell in config.cells for one in cell.replaced)
    if replaced:
        lines += ["", "What stands in for what in this dress rehearsal:", ""]
        lines += [f"- {one.what}: {one.by}, because {one.why}" for one in replaced]
    return "\n".join(lines) + "\n"


def _commands(found: Evidence, config: SubmissionConfig) -> Iterable[str]:
    """What makes one run, as it can be typed in a clone."""
    for name, verdict in found.verdicts():
        step, test = verdict.run.step, name if name in found.compliance else ""
        key = found.cell.role(step, test).removesuffix(f"/{step}")
        names = {"experiment": config.experiment, "cell": key, "step": step}
        folder = FOLDER[STEPS[step].stage].format(**names)
        words = ["./reproduce", "run", *config.overrides, "--", f"{folder}/{MANIFEST}"]
        yield f"    {shlex.join(words)}"


def _configurations(found: Evidence) -> Iterable[str]:
    for name, verdict in found.verdicts():
        yield f"- {name}: `{_config(verdict.run)}`"


def _config(manifest: Manifest) -> str:
    return json.dumps(manifest.config, sort_keys=True, separators=(",", ":"))


def _departures(cell: Cell) -> list[str]:
    if not cell.departures:
        return []
    return ["", "Departures from the rules:", "", *(f"- {what}" for what in cell.departures)]


def _listed(cells: Sequence[str]) -> str:
    return cells[0] if len(cells) == 1 else f"{len(cells)} cells"
