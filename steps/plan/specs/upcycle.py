"""A mixture of experts made of dense weights."""

from steps.config.compression import UpcycleConfig
from steps.plan.spec import Config, Cost, Facts, StepSpec, short
from steps.plan.specs.shared import WEIGHTS_NEEDS, rewritten


def cost(key: str, config: Config, facts: Facts) -> Cost:
    """At most: every weight becomes as many as there are experts."""
    size = facts.weights_gb
    if size is None:
        return short(key, config, facts)
    return rewritten(facts, size, size * config["experts"])


SPEC = StepSpec(
    module="steps.prepare.upcycle",
    says="upcycle",
    config=UpcycleConfig,
    stage="artifacts",
    environment="prepare",
    place="nodes",
    axes=("benchmark",),
    needs=WEIGHTS_NEEDS,
    cost=cost,
)
