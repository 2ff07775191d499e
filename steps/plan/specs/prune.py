"""Weights without a block of their layers."""

from steps.config.compression import PruneConfig
from steps.plan.rates import PLACE
from steps.plan.spec import Config, Cost, Facts, StepSpec, short
from steps.plan.specs.shared import WEIGHTS, WEIGHTS_NEEDS


def cost(key: str, config: Config, facts: Facts) -> Cost:
    size = facts.weights_gb
    if size is None:
        return short(key, config, facts)
    left = size * (1 - PruneConfig(**config).dropped)
    basis = f"{size + left:.0f} GB read and written at {facts.rates.disk_mb_s:g} MB/s ({PLACE})"
    return Cost(facts.rates.disk_s(size + left), left, basis=basis, rough=True)


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
