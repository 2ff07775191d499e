"""A native environment, made from its lock."""

from steps.config.artifacts import EnvironmentConfig
from steps.plan.spec import StepSpec
from steps.plan.specs.shared import environment_cost

SPEC = StepSpec(
    module="steps.machine.environment",
    says="environment",
    config=EnvironmentConfig,
    stage="artifacts",
    environment="driver",
    place="here",
    axes=("system",),
    cost=environment_cost,
)
