"""What the loopback mirror of a dress rehearsal serves."""

from steps.config.mirror import MirrorConfig
from steps.plan.spec import StepSpec

SPEC = StepSpec(
    module="steps.prepare.mirror",
    says="mirror of",
    config=MirrorConfig,
    stage="artifacts",
    environment="analysis",
    place="here",
    axes=("benchmark",),
    needs={"environment": "environment/analysis"},
)
