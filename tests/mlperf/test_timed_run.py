"""Each rule on a timed run's log stands once; the check and the validator find the same with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steps.mlperf.detail import Detail
from steps.mlperf.timed_run import NS_PER_MS, Demands, Rule, audited, breaches

DEMANDS = Demands(
    scenario="Server",
    seeds={"qsl_rng_seed": 1, "schedule_rng_seed": 2},
    min_duration_ms=600_000,
    sample_count=24_576,
    equal_issue=True,
    token_latencies=True,
    limits_ms={"ttft": 450, "tpot": 40},
)
TTFT = "result_first_token_99.00_percentile_latency_ns"
LATENCY = "result_99.00_percentile_latency_ns"
VALID: dict[str, Any] = {
    "num_errors": 0,
    TTFT: 449_000_000,
    "result_time_per_output_token_99.00_percentile_ns": 39_900_000,
    "result_min_duration_met": True,
    "result_min_queries_met": True,
    "result_perf_constraints_met": True,
    "early_stopping_met": True,
    "result_validity": "VALID",
    "effective_scenario": "Server",
    "effective_test_mode": "PerformanceOnly",
    "effective_qsl_rng_seed": 1,
    "effective_schedule_rng_seed": 2,
    "effective_sample_concatenate_permutation": True,
    "requested_use_token_latencies": True,
    "effective_min_duration_ms": 600_000,
    "effective_performance_sample_count": 24_576,
    "requested_server_ttft_latency": 450_000_000,
    "requested_server_tpot_latency": 40_000_000,
}


def broken(demands: Demands, **changes: Any) -> list[tuple[Rule, str]]:
    values = {key: value for key, value in {**VALID, **changes}.items() if value is not None}
    return [(one.rule, one.key) for one in breaches(Detail(Path("log"), values=values), demands)]


def test_a_log_that_keeps_every_rule_breaks_none() -> None:
    assert broken(DEMANDS) == []


@pytest.mark.parametrize("key", VALID)
def test_a_key_that_is_missing_breaks_the_rule_on_it(key: str) -> None:
    assert [name for _, name in broken(DEMANDS, **{key: None})] == [key]


@pytest.mark.parametrize(
    ("rule", "key", "value"),
    [
        ("errors", "num_errors", 1),
        ("limit", TTFT, 450_000_000),
        ("met", "early_stopping_met", False),
        ("validity", "result_validity", "INVALID"),
        ("scenario", "effective_scenario", "Offline"),
        ("mode", "effective_test_mode", "AccuracyOnly"),
        ("seed", "effective_qsl_rng_seed", 2),
        ("equal-issue", "effective_sample_concatenate_permutation", False),
        ("token-latencies", "requested_use_token_latencies", False),
        ("min-duration", "effective_min_duration_ms", 599_999),
        ("sample-count", "effective_performance_sample_count", 24_575),
        ("judged-limit", "requested_server_ttft_latency", 450_000_001),
    ],
)
def test_each_rule_finds_its_breach_and_no_other(rule: Rule, key: str, value: Any) -> None:
    assert broken(DEMANDS, **{key: value}) == [(rule, key)]


def test_bounds_are_where_the_rules_have_them() -> None:
    """Tokens stay below their limits, whole samples may reach theirs."""
    assert broken(DEMANDS, **{TTFT: 450 * NS_PER_MS - 1}) == []
    whole = replace(DEMANDS, limits_ms={}, latency_ms=20.0, target_latency_ms=20.0)
    target = {"effective_target_latency_ns": 20 * NS_PER_MS}
    assert broken(whole, **{LATENCY: 20 * NS_PER_MS}, **target) == []
    assert broken(whole, **{LATENCY: 20 * NS_PER_MS + 1}, **target) == [("limit", LATENCY)]
    late = {"effective_target_latency_ns": 20 * NS_PER_MS + 1}
    assert [rule for rule, _ in broken(whole, **{LATENCY: 1}, **late)] == ["target-latency"]
    assert broken(DEMANDS, effective_min_duration_ms=600_001) == []
    assert broken(replace(DEMANDS, dataset=5000), qsl_reported_total_count=5000) == []


def test_offline_is_held_to_its_own() -> None:
    demands = replace(DEMANDS, scenario="Offline", limits_ms={}, offline_samples=24_576)
    kept = {"effective_samples_per_query": 24_576, "effective_min_query_count": 1}
    assert broken(demands, effective_scenario="Offline", **kept) == []
    less = {**kept, "effective_samples_per_query": 24_575}
    found = broken(demands, effective_scenario="Offline", **less)
    assert found == [("offline-samples", "effective_samples_per_query")]


def test_settings_of_a_compliance_test_are_found() -> None:
    plain = {
        "effective_accuracy_log_sampling_target": 0,
        "effective_accuracy_log_probability": 0,
        "effective_accuracy_log_rng_seed": 0,
        "effective_performance_issue_unique": False,
        "effective_performance_issue_same": False,
    }
    assert list(audited(Detail(values=plain))) == []
    for key in plain:
        (one,) = audited(Detail(values={**plain, key: True if "issue" in key else 100}))
        assert (one.rule, one.key) == ("audit", key)
