"""The flow as a table: every step, what it may read, what it needs, where it runs.

The one place that names all steps. Plan, Snakefile and `verify` are derived from it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from steps.base.record import digest_files
from steps.config import schema
from steps.config.axes import AXES

Stage = Literal["artifacts", "runs", "verdicts", "submission", "provenance"]
Environment = Literal["driver", "engine", "prepare", "analysis", "scoring"]


@dataclass(frozen=True)
class StepSpec:
    """One step.

    `module`: what `python -m` starts. `axes`: the axes its configuration may depend on; a
    configuration that differs between two cells that agree on these is rejected. `needs` maps the
    role of an input to the step that makes it ("weights" stands for the last of model, quantize,
    prune and finetune that the cell has so far).
    `sources`: globs of the code that can change its results, besides a module that is one file.
    `planned`: what a configuration is checked against that Reprise can plan but not execute
    (steps/plan/unsupported.py).
    """

    module: str
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
_RUN_SOURCES = (
    "steps/run/sut/*.py",
    "steps/run/engines/*.py",
    "steps/run/placing/*.py",
    "steps/run/journal/*.py",
    "steps/base/threads.py",
    "steps/prepare/samples.py",
    "steps/prepare/checkpoint/mxfp4.py",
    "steps/prepare/checkpoint/formats.py",
)
_WINDOW_SOURCES = (
    "steps/config/verdicts.py",
    "steps/config/window.py",
    "steps/judge/window.py",
    "steps/run/journal/lines.py",
)
_CALIBRATED_BY = ("steps/prepare/calibration.py", "steps/prepare/samples.py")

_NOTES = (
    "steps/prepare/rehearsal/dataset.py",
    "steps/prepare/rehearsal/notes.py",
    "steps/prepare/rehearsal/tokenizer.py",
)


def _run(module: str, config: type[BaseModel]) -> StepSpec:
    """One of LoadGen's runs of a cell."""
    planned = schema.PlannedRunConfig
    return StepSpec(module, config, "runs", "engine", AXES, _RUN_NEEDS, _RUN_SOURCES, planned)


STEPS: Mapping[str, StepSpec] = {
    "environment": StepSpec(
        "steps.machine.environment",
        schema.EnvironmentConfig,
        "artifacts",
        "driver",
        ("system",),
        {},
        ("steps/base/venv.py", "steps/base/installer.py", "steps/base/locks.py"),
    ),
    "container": StepSpec(
        "steps.machine.container",
        schema.ImageConfig,
        "artifacts",
        "driver",
        ("system",),
        {},
        (
            "steps/machine/container/*.py",
            "steps/machine/runtime/*.py",
            "steps/config/container.py",
            "steps/config/runtime.py",
        ),
        planned=schema.PlannedImage,
    ),
    "model": StepSpec(
        "steps.prepare.model",
        schema.ModelConfig,
        "artifacts",
        "driver",
        ("benchmark",),
        {},
        ("steps/prepare/fetch/*.py", "steps/config/fetch.py"),
    ),
    "quantize": StepSpec(
        "steps.prepare.quantize",
        schema.QuantizeConfig,
        "artifacts",
        "prepare",
        _WEIGHTS,
        {**_WEIGHTS_NEEDS, "dataset": "dataset"},
        (
            *(
                "steps/prepare/quantize/*.py",
                "steps/prepare/checkpoint/*.py",
                "steps/prepare/rehearsal/compress.py",
            ),
            *("steps/prepare/prune/block.py", *_CALIBRATED_BY),
        ),
    ),
    "prune": StepSpec(
        "steps.prepare.prune",
        schema.PruneConfig,
        "artifacts",
        "prepare",
        _WEIGHTS,
        {**_WEIGHTS_NEEDS, "dataset": "dataset"},
        ("steps/prepare/prune/*.py", "steps/prepare/checkpoint/*.py", *_CALIBRATED_BY),
    ),
    "finetune": StepSpec(
        "steps.prepare.finetune",
        schema.FinetuneConfig,
        "artifacts",
        "prepare",
        _WEIGHTS,
        _WEIGHTS_NEEDS,
        ("steps/prepare/finetune/*.py", "steps/prepare/checkpoint/*.py", *_NOTES),
    ),
    "dataset": StepSpec(
        "steps.prepare.dataset",
        schema.DatasetConfig,
        "artifacts",
        "analysis",
        ("benchmark",),
        {"model": "model", "environment": "environment/analysis"},
        _NOTES,
        planned=schema.RemoteDatasetConfig,
    ),
    "quick_run": StepSpec(
        "steps.run.quick_run",
        schema.QuickRunConfig,
        "artifacts",
        "engine",
        ("system", *_WEIGHTS),
        _RUN_NEEDS,
        _RUN_SOURCES,
    ),
    "quick_check": StepSpec(
        "steps.judge.quick_check",
        schema.QuickCheckConfig,
        "artifacts",
        "analysis",
        ("system", *_WEIGHTS),
        {"dataset": "dataset", "model": "weights", "environment": "environment/analysis"},
        (
            "steps/base/bootstrap.py",
            "steps/config/verdicts.py",
            "steps/mlperf/rouge.py",
            "steps/run/quick_run.py",
        ),
    ),
    "describe": StepSpec(
        "steps.run.describe",
        schema.DescribeConfig,
        "artifacts",
        "driver",
        ("system",),
        {},
        ("steps/machine/probes/*.py",),
    ),
    "performance_run": _run("steps.run.performance_run", schema.PerformanceRunConfig),
    "accuracy_run": _run("steps.run.accuracy_run", schema.AccuracyRunConfig),
    "compliance_run": _run("steps.run.compliance_run", schema.ComplianceRunConfig),
    "performance_check": StepSpec(
        "steps.judge.performance_check",
        schema.PerformanceCheckConfig,
        "verdicts",
        "analysis",
        AXES,
        {"run": "performance_run", "environment": "environment/analysis"},
        (
            *_WINDOW_SOURCES,
            "steps/mlperf/early_stopping.py",
            "steps/mlperf/loadgen_log.py",
            "steps/base/untrusted.py",
        ),
    ),
    "accuracy_check": StepSpec(
        "steps.judge.accuracy_check",
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
            *_WINDOW_SOURCES,
            "steps/mlperf/loadgen_log.py",
            "steps/base/untrusted.py",
            "steps/mlperf/rouge.py",
            "steps/prepare/rehearsal/notes.py",
            "steps/prepare/rehearsal/scores.py",
            "steps/judge/scoring/*.py",
            "steps/mlperf/accuracy_text.py",
        ),
    ),
    "compliance_check": StepSpec(
        "steps.judge.compliance_check",
        schema.ComplianceCheckConfig,
        "verdicts",
        "analysis",
        AXES,
        {"run": "compliance_run", "environment": "environment/analysis"},
        (
            *_WINDOW_SOURCES,
            "steps/mlperf/loadgen_log.py",
            "steps/base/untrusted.py",
            "steps/mlperf/rounds.py",
            "steps/mlperf/truncate.py",
            "steps/mlperf/accuracy_text.py",
            "steps/judge/scoring/whole.py",
            "steps/judge/compliance/*.py",
        ),
    ),
    "submission": StepSpec(
        "steps.submit.submission",
        schema.SubmissionConfig,
        "submission",
        "analysis",
        (),
        {"environment": "environment/analysis"},
        (
            "steps/mlperf/accuracy_text.py",
            "steps/mlperf/loadgen_log.py",
            "steps/base/untrusted.py",
            "steps/mlperf/rounds.py",
            "steps/mlperf/truncate.py",
            "steps/base/confidential/*",
            "steps/submit/confidential.py",
            "steps/submit/submission/*",
            "steps/submit/validate/**/*",
            "steps/judge/compliance/lengths.py",
            "steps/judge/compliance/tokens.py",
            "conf/round/*",
        ),
    ),
    "provenance": StepSpec(
        "steps.submit.provenance",
        schema.ProvenanceConfig,
        "provenance",
        "driver",
        (),
        {"package": "submission"},
        ("steps/base/confidential/*", "steps/submit/confidential.py", "steps/submit/provenance/*"),
    ),
}

COMPARED: Mapping[str, Mapping[str, str]] = {
    "TEST01": {"performance": "performance_run", "accuracy": "accuracy_run"},
    "TEST04": {"performance": "performance_run"},
}
"""What a compliance_check needs besides its own run: role and step, by test."""

AFTER_PERFORMANCE = tuple(COMPARED)
"""Tests that wait for a performance run that holds: an earlier one would be of another try."""

PAGE = "results/{experiment}/report"
"""Where the page of an experiment lies. It is no job: it is made from whatever there is."""

PAGE_SOURCES = (
    "steps/base/confidential/*.py",
    "steps/base/earlier.py",
    *_WINDOW_SOURCES,
    "steps/mlperf/accuracy_text.py",
    "steps/plan/states.py",
    "steps/submit/confidential.py",
    "steps/report/**/*",
    "steps/mlperf/published/*",
    "conf/tolerances.yaml",
)
"""Code and tables that a page is made by."""

FOLDER: Mapping[Stage, str] = {
    "artifacts": "results/artifacts/{step}/{name}",
    "runs": "results/{experiment}/runs/{cell}/{step}",
    "verdicts": "results/{experiment}/verdicts/{cell}/{step}",
    "submission": "results/{experiment}/package",
    "provenance": "results/{experiment}/provenance",
}
"""Output directory of a step, by stage. Artifacts are shared by experiments, so their names carry
a digest of what they are made from."""

LOG: Mapping[Stage, str] = {
    "artifacts": "results/artifacts/logs/{step}/{name}.log",
    "runs": "results/{experiment}/logs/{cell}/{step}.log",
    "verdicts": "results/{experiment}/logs/{cell}/{step}.log",
    "submission": "results/{experiment}/logs/{step}.log",
    "provenance": "results/{experiment}/logs/{step}.log",
}

PER_CELL = tuple(name for name, spec in STEPS.items() if spec.stage in ("runs", "verdicts"))


def sources(step: str, root: Path) -> list[Path]:
    """Files whose content can change a step's results: its module and what the table lists."""
    spec = STEPS[step]
    return _matching((f"{spec.module.replace('.', '/')}.py", *spec.sources), root)


def _matching(patterns: Iterable[str], root: Path) -> list[Path]:
    found = {
        path
        for pattern in patterns
        for path in root.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(found)


def code_digest(step: str, root: Path) -> str:
    """What a record's `code` must equal for the record to be of today's code."""
    return digest_files(sources(step, root), root)


def page_digest(root: Path) -> str:
    """Of what makes the page of an experiment."""
    return digest_files(_matching(PAGE_SOURCES, root), root)
