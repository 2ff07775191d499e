"""The flow as a table: every step, what it may read, what it needs, where it runs.

The one place that names all steps. Plan, Snakefile and `verify` are derived from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from steps import schema
from steps.record import digest_files

AXES = ("system", "benchmark", "compression", "precision", "scenario")
"""The axes of the matrix, in the order of a cell's path."""

Stage = Literal["artifacts", "runs", "verdicts", "submission", "provenance", "report"]
Environment = Literal["driver", "engine", "prepare", "analysis", "scoring"]


@dataclass(frozen=True)
class StepSpec:
    """One step.

    `axes`: the axes its configuration may depend on; a configuration that differs between two
    cells that agree on these is rejected. `needs` maps the role of an input to the step that
    makes it ("weights" stands for the last of model, quantize, prune and finetune that the cell has
    so far).
    `sources`: globs of the code that can change its results, besides its own module. `planned`:
    what a configuration is checked against that Reprise can plan but not execute (steps/limits.py).
    """

    config: type[BaseModel]
    stage: Stage
    environment: Environment
    axes: tuple[str, ...]
    needs: Mapping[str, str]
    sources: tuple[str, ...] = ()
    planned: type[BaseModel] | None = None


_WEIGHTS = ("benchmark", "compression", "precision")
_WEIGHTS_NEEDS = {"model": "weights", "environment": "environment/prepare"}
_RUN_NEEDS = {"model": "weights", "dataset": "dataset", "environment": "environment/engine"}
_RUN_SOURCES = ("steps/sut/*.py", "steps/checkpoint/mxfp4.py", "steps/checkpoint/formats.py")
_CALIBRATED_BY = ("steps/calibration.py", "steps/sut/samples.py")

_TRAINED_ON = ("dataset", "notes", "tokenizer")


def _run(config: type[BaseModel]) -> StepSpec:
    """One of LoadGen's runs of a cell."""
    planned = schema.PlannedRunConfig
    return StepSpec(config, "runs", "engine", AXES, _RUN_NEEDS, _RUN_SOURCES, planned)


STEPS: Mapping[str, StepSpec] = {
    "environment": StepSpec(
        schema.EnvironmentConfig,
        "artifacts",
        "driver",
        ("system",),
        {},
        ("steps/virtual.py", "steps/installer.py", "steps/locks.py"),
    ),
    "container": StepSpec(
        schema.ImageConfig,
        "artifacts",
        "driver",
        ("system",),
        {},
        ("steps/container/*.py", "steps/runtime/*.py"),
        planned=schema.PlannedImage,
    ),
    "model": StepSpec(
        schema.ModelConfig,
        "artifacts",
        "driver",
        ("benchmark",),
        {},
        ("steps/fetch/*.py",),
    ),
    "quantize": StepSpec(
        schema.QuantizeConfig,
        "artifacts",
        "prepare",
        _WEIGHTS,
        {**_WEIGHTS_NEEDS, "dataset": "dataset"},
        (
            *("steps/quantize/*.py", "steps/checkpoint/*.py", "steps/rehearsal/compress.py"),
            *("steps/prune/block.py", *_CALIBRATED_BY),
        ),
    ),
    "prune": StepSpec(
        schema.PruneConfig,
        "artifacts",
        "prepare",
        _WEIGHTS,
        {**_WEIGHTS_NEEDS, "dataset": "dataset"},
        ("steps/prune/*.py", "steps/checkpoint/*.py", *_CALIBRATED_BY),
    ),
    "finetune": StepSpec(
        schema.FinetuneConfig,
        "artifacts",
        "prepare",
        _WEIGHTS,
        _WEIGHTS_NEEDS,
        (
            *("steps/finetune/*.py", "steps/checkpoint/*.py"),
            *(f"steps/rehearsal/{name}.py" for name in _TRAINED_ON),
        ),
    ),
    "dataset": StepSpec(
        schema.DatasetConfig,
        "artifacts",
        "analysis",
        ("benchmark",),
        {"model": "model", "environment": "environment/analysis"},
        ("steps/rehearsal/notes.py", "steps/rehearsal/dataset.py", "steps/rehearsal/tokenizer.py"),
        planned=schema.RemoteDatasetConfig,
    ),
    "quick_run": StepSpec(
        schema.QuickRunConfig,
        "artifacts",
        "engine",
        ("system", *_WEIGHTS),
        _RUN_NEEDS,
        _RUN_SOURCES,
    ),
    "quick_check": StepSpec(
        schema.QuickCheckConfig,
        "artifacts",
        "analysis",
        ("system", *_WEIGHTS),
        {"dataset": "dataset", "model": "weights", "environment": "environment/analysis"},
        ("steps/interval.py", "steps/rouge.py", "steps/quick_run.py"),
    ),
    "describe": StepSpec(
        schema.DescribeConfig, "artifacts", "driver", ("system",), {}, ("steps/probes/*.py",)
    ),
    "performance_run": _run(schema.PerformanceRunConfig),
    "accuracy_run": _run(schema.AccuracyRunConfig),
    "compliance_run": _run(schema.ComplianceRunConfig),
    "performance_check": StepSpec(
        schema.PerformanceCheckConfig,
        "verdicts",
        "analysis",
        AXES,
        {"run": "performance_run", "environment": "environment/analysis"},
        (
            "steps/loadgen_log.py",
            "steps/reading.py",
        ),
    ),
    "accuracy_check": StepSpec(
        schema.AccuracyCheckConfig,
        "verdicts",
        "scoring",
        AXES,
        {
            "run": "accuracy_run",
            "dataset": "dataset",
            "model": "weights",
            "environment": "environment/scoring",
        },
        (
            "steps/loadgen_log.py",
            "steps/reading.py",
            "steps/rouge.py",
            "steps/rehearsal/notes.py",
            "steps/rehearsal/scores.py",
            "steps/scoring/*.py",
            "steps/accuracy_text.py",
        ),
    ),
    "compliance_check": StepSpec(
        schema.ComplianceCheckConfig,
        "verdicts",
        "analysis",
        AXES,
        {"run": "compliance_run", "environment": "environment/analysis"},
        (
            "steps/loadgen_log.py",
            "steps/reading.py",
            "steps/rounds.py",
            "steps/truncate.py",
            "steps/accuracy_text.py",
            "steps/scoring/whole.py",
            "steps/compliance/*.py",
        ),
    ),
    "submission": StepSpec(
        schema.SubmissionConfig,
        "submission",
        "analysis",
        (),
        {"environment": "environment/analysis"},
        (
            "steps/accuracy_text.py",
            "steps/loadgen_log.py",
            "steps/reading.py",
            "steps/rounds.py",
            "steps/truncate.py",
            "steps/confidential/*",
            "steps/submission/*",
            "steps/validate/**/*",
            "steps/compliance/lengths.py",
            "steps/compliance/tokens.py",
            "conf/round/*",
        ),
    ),
    "provenance": StepSpec(
        schema.ProvenanceConfig,
        "provenance",
        "driver",
        (),
        {"package": "submission"},
        ("steps/confidential/*", "steps/provenance/*"),
    ),
    "report": StepSpec(
        schema.ReportConfig,
        "report",
        "analysis",
        (),
        {
            "environment": "environment/analysis",
            "package": "submission",
            "provenance": "provenance",
        },
        (
            "steps/confidential/*",
            "steps/report/**/*",
            "steps/tune/frontier.py",
            "steps/claims/*",
            "steps/comparison/*",
            "steps/published/*",
            "conf/tolerances.yaml",
        ),
    ),
}

COMPARED: Mapping[str, Mapping[str, str]] = {
    "TEST01": {"performance": "performance_run", "accuracy": "accuracy_run"},
    "TEST04": {"performance": "performance_run"},
}
"""What a compliance_check needs besides its own run: role and step, by test."""

FOLDER: Mapping[Stage, str] = {
    "artifacts": "results/artifacts/{step}/{name}",
    "runs": "results/{experiment}/runs/{cell}/{step}",
    "verdicts": "results/{experiment}/verdicts/{cell}/{step}",
    "submission": "results/{experiment}/package",
    "provenance": "results/{experiment}/provenance",
    "report": "results/{experiment}/report",
}
"""Output directory of a step, by stage. Artifacts are shared by experiments, so their names carry
a digest of what they are made from."""

LOG: Mapping[Stage, str] = {
    "artifacts": "results/artifacts/logs/{step}/{name}.log",
    "runs": "results/{experiment}/logs/{cell}/{step}.log",
    "verdicts": "results/{experiment}/logs/{cell}/{step}.log",
    "submission": "results/{experiment}/logs/{step}.log",
    "provenance": "results/{experiment}/logs/{step}.log",
    "report": "results/{experiment}/logs/{step}.log",
}

PER_CELL = tuple(name for name, spec in STEPS.items() if spec.stage in ("runs", "verdicts"))


def sources(step: str, root: Path) -> list[Path]:
    """Files whose content can change a step's results: its module and what the table lists."""
    found = {
        path
        for pattern in (f"steps/{step}.py", *STEPS[step].sources)
        for path in root.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(found)


def code_digest(step: str, root: Path) -> str:
    """What a record's `code` must equal for the record to be of today's code."""
    return digest_files(sources(step, root), root)
