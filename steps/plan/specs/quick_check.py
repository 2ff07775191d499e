"""The verdict on a quick run, which the runs of its cells wait for."""

from steps.config.checks import QuickCheckConfig
from steps.plan.spec import StepSpec
from steps.plan.specs.shared import WEIGHTS

SPEC = StepSpec(
    module="steps.judge.quick_check",
    says="quick check",
    config=QuickCheckConfig,
    stage="artifacts",
    environment="analysis",
    place="here",
    axes=("system", *WEIGHTS),
    needs={"dataset": "dataset", "model": "weights", "environment": "environment/analysis"},
    priority=50,
)
