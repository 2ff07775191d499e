"""The flow as a table: every step in data order, where results and logs lie.

The one place that names all steps. Plan, rules and `verify` are derived from it. What is known of a
step stands in steps/plan/specs/, in the file that has its name.
"""

from collections.abc import Mapping
from importlib import import_module

from steps.plan.spec import Stage, StepSpec

_ORDER = (
    *("environment", "container", "mirror", "model", "upcycle", "quantize", "prune"),
    *("training_sets", "finetune"),
    *("dataset_files", "dataset", "quick_run", "quick_check", "describe"),
    *("performance_run", "accuracy_run", "compliance_run"),
    *("performance_check", "accuracy_check", "compliance_check"),
    *("submission", "provenance"),
)

STEPS: Mapping[str, StepSpec] = {
    name: import_module(f"steps.plan.specs.{name}").SPEC for name in _ORDER
}

COMPARED: Mapping[str, Mapping[str, str]] = {
    "TEST01": {"performance": "performance_run", "accuracy": "accuracy_run"},
    "TEST04": {"performance": "performance_run"},
    "TEST07": {"dataset": "dataset", "model": "weights"},
}
"""What a compliance_check needs besides its own run: role and step, by test."""

SCORED_ALIKE = "TEST01"
SCORING: Mapping[str, str] = {"dataset": "dataset", "environment": "environment/scoring"}
"""The test whose answers may differ if they score alike, and what its check needs to score them."""

AFTER_PERFORMANCE = ("TEST01", "TEST04")
"""Tests that wait for a performance run that holds: an earlier one would be of another try."""

PAGE = "results/{experiment}/report"
"""Where the page of an experiment lies. It is no job: it is made from whatever there is."""

PAGE_MODULE = "steps.report"
PAGE_DATA = (
    "steps/report/templates/*",
    "steps/report/claims/*.yaml",
    "steps/mlperf/published/*.csv",
    "conf/round/*.yaml",
    "conf/tolerances.yaml",
)
"""What makes that page: a module, and the files that it reads besides results."""

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
