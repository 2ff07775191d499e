"""Verdicts on a performance run: everything that makes one invalid is named."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config import verdicts
from steps.config.checks import PerformanceCheckConfig
from steps.config.verdicts import PerformanceVerdict, Verdict, as_result
from steps.config.window import Disturbance, Window
from steps.judge.disturbances import differences_of
from steps.judge.performance_check import complaints, judge, metrics
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen_log import MARKER
from tests.conftest import planned
from tests.running import run_result

P99 = "99.00"


@pytest.fixture(scope="module")
def config() -> PerformanceCheckConfig:
    rate = "set.Interactive.target_qps=25"
    plan = planned("experiment=rehearsal-full", "scenario=Interactive", rate)
    job = next(job for job in plan.jobs if job.step == "performance_check")
    return PerformanceCheckConfig.model_validate_json(job.config)


def values(config: PerformanceCheckConfig) -> dict[str, Any]:
    """A detail log's keys as LoadGen 5.1.2 writes them for a valid Interactive run."""
    seeds = {f"effective_{k}": v for k, v in config.rules.seeds.model_dump().items()}
    percentiles = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")
    return {
        "loadgen_version": "5.1.2 @ 06c742a84a",
        "loadgen_git_status_message": "",
        "requested_use_token_latencies": True,
        "requested_server_ttft_latency": 450_000_000,
        "requested_server_tpot_latency": 40_000_000,
        "effective_scenario": "Server",
        "effective_test_mode": "PerformanceOnly",
        "effective_target_qps": 25,
        "effective_min_duration_ms": 600_000,
        "effective_performance_sample_count": 24_576,
        "effective_sample_concatenate_permutation": True,
        "effective_accuracy_log_sampling_target": 0,
        "effective_performance_issue_unique": False,
        "effective_performance_issue_same": False,
        **seeds,
        "result_validity": "VALID",
        "result_min_duration_met": True,
        "result_min_queries_met": True,
        "result_perf_constraints_met": True,
        "early_stopping_met": True,
        "result_query_count": 24_576,
        "result_completed_samples_per_sec": 24.9,
        "result_completed_tokens_per_second": 718.1,
        "num_errors": 0,
        **{f"result_first_token_{p}_percentile_latency_ns": 44_900_000 for p in percentiles},
        **{f"result_time_per_output_token_{p}_percentile_ns": 39_990_000 for p in percentiles},
    }


def detail_of(tmp_path: Path, found: dict[str, Any], errors: tuple[str, ...] = ()) -> Any:
    lines = [
        MARKER.decode()
        + json.dumps(
            {
                "key": k,
                "value": v,
                "time_ms": 1.5,
                "metadata": {"is_error": k in errors, "is_warning": False},
            }
        )
        for k, v in found.items()
    ]
    path = tmp_path / "mlperf_log_detail.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_detail(path)


def test_a_valid_run_has_no_complaint(config: PerformanceCheckConfig, tmp_path: Path) -> None:
    detail = detail_of(tmp_path, values(config))
    assert list(complaints(detail, config)) == []
    result = metrics(detail, config)
    assert result["value"] == 718.1
    assert result["ttft_ms"]["p99"] == pytest.approx(44.9)
    assert set(result["tpot_ms"]) == {"p50", "p90", "p95", "p97", "p99", "p99.9"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("result_validity", "INVALID", "LoadGen says INVALID: early stopping was not met"),
        ("effective_test_mode", "AccuracyOnly", "effective_test_mode is 'AccuracyOnly'"),
        ("effective_scenario", "Offline", "effective_scenario"),
        ("effective_qsl_rng_seed", 1, "effective_qsl_rng_seed is 1"),
        ("effective_schedule_rng_seed", 1, "effective_schedule_rng_seed"),
        ("effective_sample_index_rng_seed", 1, "effective_sample_index_rng_seed"),
        ("effective_min_duration_ms", 599_999, "effective_min_duration_ms is 599999"),
        ("effective_performance_sample_count", 1024, "effective_performance_sample_count"),
        ("effective_accuracy_log_sampling_target", 100, "sampling_target is 100"),
        ("effective_performance_issue_same", True, "performance_issue_same"),
        ("effective_sample_concatenate_permutation", False, "concatenate_permutation"),
        ("requested_use_token_latencies", False, "use_token_latencies"),
        ("requested_server_ttft_latency", 2_000_000_000, "requested_server_ttft_latency"),
        ("effective_target_qps", 26, "effective_target_qps is 26, not 25"),
        ("loadgen_git_status_message", " M loadgen.cc", "git_status"),
        ("result_min_duration_met", False, "result_min_duration_met is False"),
        ("early_stopping_met", False, "early_stopping_met is False"),
        ("num_errors", 3, "num_errors is 3"),
        (
            f"result_first_token_{P99}_percentile_latency_ns",
            450_000_000,
            "p99 TTFT is 450.0 ms at 25 queries/s",
        ),
        (f"result_time_per_output_token_{P99}_percentile_ns", 40_000_000, "p99 TPOT is 40.0 ms"),
    ],
)
def test_each_fault_is_named(
    config: PerformanceCheckConfig, tmp_path: Path, key: str, value: Any, words: str
) -> None:
    assert key in values(config), "the fault must change something"
    detail = detail_of(tmp_path, {**values(config), key: value})
    found = list(complaints(detail, config))
    assert len(found) == 1
    assert words in str(found[0])
    verdict = judge(detail, config)
    assert not verdict.holds and verdict.value == 718.1 and words in verdict.why


def test_too_many_misses_below_the_p99_say_how_many_may(
    config: PerformanceCheckConfig, tmp_path: Path
) -> None:
    found = {**values(config), "result_validity": "INVALID", "early_stopping_met": False}
    first = str(next(complaints(detail_of(tmp_path, found), config)))
    assert "of 24,576 queries 209 may be over a limit; lower set.Interactive.target_qps" in first


def test_a_limit_that_was_missed_is_named_first(
    config: PerformanceCheckConfig, tmp_path: Path
) -> None:
    found = {
        **values(config),
        "result_validity": "INVALID",
        "early_stopping_met": False,
        f"result_time_per_output_token_{P99}_percentile_ns": 52_100_000,
    }
    first = str(next(complaints(detail_of(tmp_path, found), config)))
    assert first.startswith("p99 TPOT is 52.1 ms at 25 queries/s, the limit of Interactive is 40")


def test_an_error_that_num_errors_hides_is_found(
    config: PerformanceCheckConfig, tmp_path: Path
) -> None:
    found = {**values(config), "error_runtime": "Ending early: Max query count reached."}
    detail = detail_of(tmp_path, found, errors=("error_runtime",))
    assert "Ending early" in str(next(complaints(detail, config)))


@pytest.mark.parametrize("key", ["result_validity", "num_errors", "effective_test_mode"])
def test_a_truncated_log_is_no_valid_one(
    config: PerformanceCheckConfig, tmp_path: Path, key: str
) -> None:
    found = values(config)
    del found[key]
    with pytest.raises(UserError, match=f"has no {key}"):
        list(complaints(detail_of(tmp_path, found), config))


@cache
def of_images(scenario: str) -> PerformanceCheckConfig:
    chosen = ["experiment=amd-v5.1", "benchmark=stable-diffusion-xl", f"scenario={scenario}"]
    job = next(job for job in planned(*chosen).jobs if job.step == "performance_check")
    return PerformanceCheckConfig.model_validate_json(job.config)


def image_values(config: PerformanceCheckConfig) -> dict[str, Any]:
    """What LoadGen writes of pictures: no tokens, no whole copies of the dataset."""
    tokens = ("first_token", "per_output_token", "tokens_per_second", "ttft", "tpot")
    found = {k: v for k, v in values(config).items() if not any(word in k for word in tokens)}
    found |= {
        "effective_scenario": config.scenario,
        "effective_target_qps": config.loadgen.target_qps,
        "effective_performance_sample_count": 5_000,
        "effective_sample_concatenate_permutation": False,
        "effective_target_latency_ns": 20_000_000_000,
        "result_completed_samples_per_sec": 16.2,
        "result_samples_per_second": 18.6,
    }
    if (least := config.loadgen.min_query_count) is not None:
        found["requested_min_query_count"] = least
    del found["requested_use_token_latencies"]
    percentiles = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")
    return found | {f"result_{p}_percentile_latency_ns": 18_010_059_342 for p in percentiles}


@pytest.mark.parametrize(
    ("scenario", "value", "unit"), [("Offline", 18.6, "Samples/s"), ("Server", 16.2, "Queries/s")]
)
def test_pictures_are_judged_without_tokens(
    scenario: str, value: float, unit: str, tmp_path: Path
) -> None:
    config = of_images(scenario)
    detail = detail_of(tmp_path, image_values(config))
    assert list(complaints(detail, config)) == []
    result = metrics(detail, config)
    assert (result["metric"], result["value"], result["unit"]) == (
        "samples_per_second",
        value,
        unit,
    )
    assert result["ttft_ms"] is None and result["tpot_ms"] is None
    assert (result["latency_ms"] is None) == (scenario == "Offline")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"result_{P99}_percentile_latency_ns": 20_000_000_001}, "p99 latency is 20000.0 ms"),
        ({"effective_target_latency_ns": 30_000_000_000}, "effective_target_latency_ns is"),
        ({"effective_sample_concatenate_permutation": True}, "concatenate_permutation"),
        ({f"result_{P99}_percentile_latency_ns": 20_000_000_000}, ""),
    ],
)
def test_pictures_have_a_limit_of_their_own(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    config = of_images("Server")
    detail = detail_of(tmp_path, {**image_values(config), **changes})
    found = list(complaints(detail, config))
    assert len(found) == bool(words)
    assert not words or words in str(found[0])


def test_numbers_lead_and_a_disturbed_window_is_told(
    config: PerformanceCheckConfig, tmp_path: Path
) -> None:
    late = {
        f"result_first_token_{P99}_percentile_latency_ns": 5_000_000_000,
        "result_validity": "INVALID",
        "result_perf_constraints_met": False,
    }
    disturbed = Disturbance(
        by="processes", words="other processes took 1.3 of 2 cores", from_s=26.2, to_s=50.0
    )
    window = Window(disturbances=(disturbed,))
    verdict = judge(detail_of(tmp_path, {**values(config), **late}), config, window)
    assert [one.code for one in verdict.complaints] == [
        *("ttft", "perf_constraints_met", "result_validity")
    ]
    assert (verdict.complaints[0].value, verdict.complaints[0].limit) == (5000.0, 450.0)
    assert verdict.why == (
        "p99 TTFT is 5000.0 ms at 25 queries/s, the limit of Interactive is 450 ms; lower "
        "set.Interactive.target_qps, or end what else runs on this machine (and 2 more); from "
        "second 26 to 50 other processes took 1.3 of 2 cores"
    )
    result = as_result(verdict)
    manifest = Manifest(tmp_path, "performance_check", {}, {}, {}, json.loads(json.dumps(result)))
    assert verdicts.of(manifest, PerformanceVerdict) == verdict


def test_a_verdict_of_another_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "performance_check", {}, {}, {}, {"valid": True, "value": 1.0})
    with pytest.raises(UserError, match="of another version"):
        verdicts.of(manifest, PerformanceVerdict)
    with pytest.raises(UserError, match="holds no verdict but a result of performance_run"):
        verdicts.of(replace(manifest, step="performance_run"), PerformanceVerdict)


def test_what_an_engine_did_otherwise_is_said_and_a_result_holds_all_the_same() -> None:
    said = "arguments.async_scheduling: True was asked for, the engine has False"
    run = Manifest(Path(), "performance_run", {}, {}, {}, run_result())
    assert differences_of(run) == ()
    asked = replace(run, result=run_result(resolved={"differences": [said]}))
    assert differences_of(asked) == (said,)
    verdict = Verdict(holds=True, complaints=(), differences=(said,))
    assert verdict.holds and Verdict.model_validate_json(verdict.model_dump_json()) == verdict
