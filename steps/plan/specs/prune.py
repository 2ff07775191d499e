"""Weights without a block of their layers."""

from steps.config.compression import PruneConfig
from steps.plan.spec import Config, Cost, Facts, StepSpec, short
from steps.plan.specs.shared import WEIGHTS, WEIGHTS_NEEDS, rewritten


def cost(key: str, config: Config, facts: Facts) -> Cost:
    size = facts.weights_gb
    if size is None:
        return short(key, config, facts)
    return rewritten(facts, size, size * (1 - PruneConfig(**config).dropped))


SPEC = StepSpec(
    module="steps.prepare.prune",
    says="prune",
    config=PruneConfig,
    stage="artifacts",
    environment="prepare",
    place="nodes",
    axes=WEIGHTS,
    needs={**WEIGHTS_NEEDS, "dataset": "dataset"},
    cost=cost,
)
