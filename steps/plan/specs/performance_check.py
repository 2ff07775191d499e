"""Whether a performance run is valid."""

from steps.config.axes import AXES
from steps.config.checks import PerformanceCheckConfig
from steps.plan.spec import StepSpec

SPEC = StepSpec(
    module="steps.judge.performance_check",
    says="validity of",
    config=PerformanceCheckConfig,
    stage="verdicts",
    environment="analysis",
    place="here",
    axes=AXES,
    needs={"run": "performance_run", "environment": "environment/analysis"},
    priority=50,
    every_cell=True,
)
