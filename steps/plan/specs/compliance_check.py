"""The verdict on a compliance test."""

from steps.config.axes import AXES
from steps.config.checks import ComplianceCheckConfig
from steps.plan.spec import Config, StepSpec

BY_HAND = ("TEST07", "TEST09")
"""Tests that `./reproduce compliance` verifies, on logs, and no plan does."""


def limitation(config: Config) -> str | None:
    test = config["test"]
    if test not in BY_HAND:
        return None
    return f"this version verifies {test} of logs alone: ./reproduce compliance {test}"


SPEC = StepSpec(
    module="steps.judge.compliance_check",
    says="compliance of",
    config=ComplianceCheckConfig,
    stage="verdicts",
    environment="analysis",
    place="here",
    axes=AXES,
    needs={"run": "compliance_run", "environment": "environment/analysis"},
    priority=50,
    limitation=limitation,
)
