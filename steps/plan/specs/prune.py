"""Weights without a block of their layers."""

from steps.config.compression import PruneConfig
from steps.plan.spec import StepSpec
from steps.plan.specs.shared import WEIGHTS, WEIGHTS_NEEDS

SPEC = StepSpec(
    module="steps.prepare.prune",
    says="prune",
    config=PruneConfig,
    stage="artifacts",
    environment="prepare",
    place="nodes",
    axes=WEIGHTS,
    needs={**WEIGHTS_NEEDS, "dataset": "dataset"},
)
