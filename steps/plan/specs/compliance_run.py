"""A run of one of the round's compliance tests."""

from steps.config.runs import ComplianceRunConfig
from steps.plan.spec import Config, Cost, Facts
from steps.plan.specs.shared import (
    loadgen_run,
    performance_cost,
    run_cost,
    unused_by_timed,
    unused_by_untimed,
)


def counted(config: Config) -> bool:
    """Whether the test's audit.config says how many queries there are, and that no time does."""
    audit = config["audit"]
    return audit.get("min_duration") == 0 and "min_query_count" in audit


def unused(config: Config) -> tuple[str, ...]:
    return unused_by_untimed(config) if counted(config) else unused_by_timed(config)


def cost(key: str, config: Config, facts: Facts) -> Cost:
    """Only TEST06 is short; a test that sets no query count lasts as long as the rules ask."""
    audit = config["audit"]
    logged = audit.get("accuracy_log_sampling_target", 0)
    if "min_query_count" in audit:
        return run_cost(config, facts, audit["min_query_count"], logged)
    return performance_cost(key, config, facts, logged)


SPEC = loadgen_run(
    module="steps.run.compliance_run",
    says="compliance run",
    config=ComplianceRunConfig,
    unused=unused,
    cost=cost,
    priority=30,
)
