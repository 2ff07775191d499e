"""The verdict on a compliance test."""

from steps.config.axes import AXES
from steps.config.checks import ComplianceCheckConfig
from steps.plan.spec import StepSpec

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
)
