"""A native environment, made from its lock."""

from steps.config.artifacts import EnvironmentConfig
from steps.plan.spec import StepSpec
from steps.plan.specs.shared import ENGINE_OPTIONS, environment_cost

SPEC = StepSpec(
    module="steps.machine.environment",
    says="environment",
    config=EnvironmentConfig,
    stage="artifacts",
    environment="driver",
    place="here",
    axes=("system",),
    sources=(
        "steps/base/venv.py",
        "steps/base/installer.py",
        "steps/base/locks.py",
        *ENGINE_OPTIONS,
    ),
    cost=environment_cost,
)
