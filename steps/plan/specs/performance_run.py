"""LoadGen's PerformanceOnly mode."""

from steps.config.runs import PerformanceRunConfig
from steps.plan.specs.shared import loadgen_run, performance_cost, unused_by_timed

SPEC = loadgen_run(
    module="steps.run.performance_run",
    says="performance run",
    config=PerformanceRunConfig,
    unused=unused_by_timed,
    cost=performance_cost,
    priority=10,
    every_cell=True,
)
