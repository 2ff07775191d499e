"""A look at new weights before anything is measured: what fails here spares the rest."""

from steps.config.runs import QuickRunConfig
from steps.plan.spec import Config, Cost, Facts, StepSpec
from steps.plan.specs.shared import RUN_NEEDS, START_S, WEIGHTS

QUICK_QPS = 40.0


def cost(key: str, config: Config, facts: Facts) -> Cost:
    return Cost(START_S + config["samples"] / QUICK_QPS, 0.001)


SPEC = StepSpec(
    module="steps.run.quick_run",
    says="quick run",
    config=QuickRunConfig,
    stage="artifacts",
    environment="engine",
    place="nodes",
    axes=("system", *WEIGHTS),
    needs=RUN_NEEDS,
    priority=40,
    cost=cost,
)
