"""The system description, probed on a node of the system."""

from steps.config.artifacts import DescribeConfig
from steps.plan.spec import StepSpec

SPEC = StepSpec(
    module="steps.run.describe",
    says="describe system",
    config=DescribeConfig,
    stage="artifacts",
    environment="driver",
    place="nodes",
    axes=("system",),
    every_cell=True,
)
