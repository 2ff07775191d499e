"""Where a cell leaves the rules of its round. A tree with any departure may not be submitted."""

from steps.config.checks import PerformanceCheckConfig
from steps.plan.specs.shared import LOADGEN_SLACK

REHEARSED = "dress rehearsal: small weights and data stand in for the benchmark's"


def departures(
    check: PerformanceCheckConfig, evaluation_count: int, *, emulated: bool, rehearsed: bool = False
) -> tuple[str, ...]:
    """One phrase each, with the value here and the value of the rules; empty if none."""
    rules, loadgen = check.rules, check.loadgen
    limits = (
        ("min_duration_ms", loadgen.min_duration_ms, rules.min_duration_ms),
        (
            "performance_sample_count",
            loadgen.performance_sample_count_override,
            rules.performance_sample_count,
        ),
        ("dataset size", evaluation_count, rules.dataset_size),
        ("Offline's sample count", _offline_samples(check), rules.offline_min_samples),
    )
    found = [REHEARSED] if rehearsed else []
    found += [
        f"{name} is {value:,} instead of {minimum:,}"
        for name, value, minimum in limits
        if value is not None and value < minimum
    ]
    if emulated:
        found.append("precision is emulated, not executed by the accelerator")
    return tuple(found)


def _offline_samples(check: PerformanceCheckConfig) -> int | None:
    """What target_qps promises for the least duration, or min_query_count if that is more; with
    equal issue as many whole copies of the sample set. None: LoadGen's own minimum, which is the
    round's.
    """
    loadgen, rules = check.loadgen, check.rules
    if check.scenario != "Offline" or loadgen.min_query_count is None:
        return None
    promised = LOADGEN_SLACK * loadgen.target_qps * loadgen.least_ms(rules) / 1000
    issued = max(loadgen.min_query_count, int(promised))
    copy = loadgen.sample_count(rules) if rules.equal_issue else 1
    return -(-issued // copy) * copy
