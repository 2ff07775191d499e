"""LoadGen's AccuracyOnly mode."""

from steps.config.runs import AccuracyRunConfig
from steps.plan.spec import Config, Cost, Facts
from steps.plan.specs.shared import loadgen_run, run_cost, unused_by_untimed


def cost(key: str, config: Config, facts: Facts) -> Cost:
    return run_cost(config, facts, facts.samples, logged=facts.samples)


SPEC = loadgen_run(
    module="steps.run.accuracy_run",
    says="accuracy run",
    config=AccuracyRunConfig,
    unused=unused_by_untimed,
    cost=cost,
    priority=20,
    every_cell=True,
)
