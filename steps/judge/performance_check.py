"""Is a performance run valid, and is it the run that was configured?"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steps.base.console import Console
from steps.base.record import Manifest, Workspace
from steps.base.step import main
from steps.config.checks import PerformanceCheckConfig
from steps.config.verdicts import Complaint, Limits, PerformanceVerdict, as_result, plain
from steps.config.window import Window
from steps.judge.window import differences_of, window_of
from steps.mlperf.early_stopping import allowed_misses
from steps.mlperf.loadgen import DETAIL, LATENCY_KEY, P99, TPOT_KEY, TTFT_KEY, loadgen_scenario
from steps.mlperf.loadgen_log import Detail, read_detail

NS_PER_MS = 1e6
PERCENTILES = ("50.00", "90.00", "95.00", "97.00", P99, "99.90")


def step(
    config: PerformanceCheckConfig,
    inputs: Mapping[str, Path],
    workspace: Workspace,
    console: Console,
) -> None:
    """Publishes a PerformanceVerdict, whatever it says; the log has every complaint."""
    run = Manifest.read(inputs["run"])
    detail = read_detail(run.file(DETAIL))
    verdict = judge(detail, config, window_of(run, config.window, console.say)).model_copy(
        update={"differences": differences_of(run)}
    )
    for complaint in verdict.complaints:
        print(f"complaint: {complaint}")
    if not verdict.holds:
        console.say(f"the {config.scenario} performance run is not valid: {verdict.why}")
    workspace.result = as_result(verdict)
    text = json.dumps(workspace.result, indent=1, sort_keys=True) + "\n"
    (workspace.directory / "performance.json").write_text(text, encoding="utf-8")


def judge(
    detail: Detail, config: PerformanceCheckConfig, window: Window | None = None
) -> PerformanceVerdict:
    """Complaints and metrics of a log. Raises UserError for one that lacks what LoadGen writes."""
    found = tuple(complaints(detail, config))
    return PerformanceVerdict(
        holds=not found, complaints=found, window=window, **metrics(detail, config)
    )


def complaints(detail: Detail, config: PerformanceCheckConfig) -> Iterator[Complaint]:
    """What a strict reading of the round's rules finds wrong, the most telling first: numbers
    against their limits before LoadGen's general word.

    Stricter than submission_checker.py of v5.1.1, which looks neither at the test mode nor at
    audit settings, nor at errors that num_errors doesn't count.
    """
    yield from _errors(detail)
    yield from _latencies(detail, config)
    yield from _validity(detail, config)
    for key, expected in _expected(config).items():
        value = detail.get(key)
        if value != expected:
            yield _unexpected(key, value, expected)


def _unexpected(key: str, value: object, expected: object) -> Complaint:
    return Complaint(
        code=key,
        words=f"{key} is {value!r}, not {expected!r}",
        value=plain(value),
        limit=plain(expected),
    )


def metrics(detail: Detail, config: PerformanceCheckConfig) -> dict[str, Any]:
    """The fields of PerformanceVerdict that stand beside its complaints."""
    offline, rules = config.scenario == "Offline", config.rules
    tokens = "result_tokens_per_second" if offline else "result_completed_tokens_per_second"
    samples = "result_samples_per_second" if offline else "result_completed_samples_per_sec"
    timed = rules.token_latencies and not offline
    whole = not rules.token_latencies and not offline
    return {
        "metric": "tokens_per_second" if rules.token_latencies else "samples_per_second",
        "value": float(detail.get(tokens if rules.token_latencies else samples)),
        "unit": _unit(config),
        "samples_per_second": float(detail.get(samples)),
        "query_count": int(detail.get("result_query_count")),
        "target_qps": float(detail.get("effective_target_qps")),
        "ttft_ms": _distribution(detail, TTFT_KEY) if timed else None,
        "tpot_ms": _distribution(detail, TPOT_KEY) if timed else None,
        "latency_ms": _distribution(detail, LATENCY_KEY) if whole else None,
        "limits": Limits(ttft_ms=rules.ttft_ms, tpot_ms=rules.tpot_ms, latency_ms=rules.latency_ms),
        "min_duration_ms": int(detail.get("effective_min_duration_ms")),
        "loadgen_version": str(detail.get("loadgen_version")),
    }


def _unit(config: PerformanceCheckConfig) -> str:
    if config.rules.token_latencies:
        return "Tokens/s"
    return "Samples/s" if config.scenario == "Offline" else "Queries/s"


def _errors(detail: Detail) -> Iterator[Complaint]:
    if detail.errors:
        first = detail.errors[0]
        yield Complaint(
            code="error",
            words=f"LoadGen reported an error on line {first.line}: {first.key}: {first.value}",
        )
    if (count := detail.get("num_errors")) != 0:
        yield Complaint(
            code="num_errors", words=f"num_errors is {count}", value=plain(count), limit=0.0
        )


def _validity(detail: Detail, config: PerformanceCheckConfig) -> Iterator[Complaint]:
    """What was not met with its numbers where there are any, then what LoadGen says of it all."""
    for key in ("result_min_duration_met", "result_min_queries_met"):
        if detail.get(key) is not True:
            yield _unmet(key, detail, config)
    # Absent where a scenario has no such constraint.
    for key in ("result_perf_constraints_met", "early_stopping_met"):
        if detail.values.get(key, True) is not True:
            yield _unmet(key, detail, config)
    if (said := detail.get("result_validity")) != "VALID":
        reason = detail.values.get("result_invalid_reason") or "early stopping was not met"
        yield Complaint(
            code="result_validity",
            words=f"LoadGen says {said}: {reason}",
            value=plain(said),
            limit="VALID",
        )


def _unmet(key: str, detail: Detail, config: PerformanceCheckConfig) -> Complaint:
    """With what to do about it, if that is known."""
    words, fix = f"{key} is {detail.values.get(key)!r}", ""
    rate = f"set.{config.scenario}.target_qps"
    if key == "result_min_duration_met":
        fix = f"the machine is faster than configured: raise {rate}"
    if key == "early_stopping_met" and config.scenario != "Offline":
        # The p99 may keep its limit, and too many queries all the same do not.
        queries = int(detail.get("result_query_count"))
        words += f": of {queries:,} queries {max(allowed_misses(queries), 0)} may be over a limit"
        fix = f"lower {rate}, or end what else runs on this machine"
    return Complaint(
        code=key.removeprefix("result_"),
        words=words,
        value=plain(detail.values.get(key)),
        limit=True,
        fix=fix,
    )


def _latencies(detail: Detail, config: PerformanceCheckConfig) -> Iterator[Complaint]:
    """Those of tokens have to stay below their limits; LoadGen lets whole samples reach theirs."""
    if config.scenario == "Offline":
        return
    rules = config.rules
    for name, template, limit_ms, may_reach in (
        ("TTFT", TTFT_KEY, rules.ttft_ms, False),
        ("TPOT", TPOT_KEY, rules.tpot_ms, False),
        ("latency", LATENCY_KEY, rules.latency_ms, True),
    ):
        if limit_ms is None:
            continue
        value_ms = detail.get(template.format(P99)) / NS_PER_MS
        if not (value_ms < limit_ms or (may_reach and value_ms == limit_ms)):
            rate = detail.get("effective_target_qps")
            yield Complaint(
                code=name.lower(),
                words=f"p99 {name} is {value_ms:.1f} ms at {rate:g} queries/s, the limit of "
                f"{config.scenario} is {limit_ms:g} ms",
                value=plain(value_ms),
                limit=limit_ms,
                fix=f"lower set.{config.scenario}.target_qps, or end what else runs on this "
                "machine",
            )


def _expected(config: PerformanceCheckConfig) -> dict[str, Any]:
    """Settings that the log must show: the configuration's, else the round's."""
    rules, loadgen = config.rules, config.loadgen
    offline = config.scenario == "Offline"
    expected: dict[str, Any] = {
        "effective_scenario": loadgen_scenario(config.scenario),
        "effective_test_mode": "PerformanceOnly",
        "effective_target_qps": loadgen.target_qps,
        "effective_min_duration_ms": loadgen.least_ms(rules),
        "effective_performance_sample_count": loadgen.sample_count(rules),
        "effective_sample_concatenate_permutation": rules.equal_issue,
        "effective_accuracy_log_sampling_target": 0,
        "effective_performance_issue_unique": False,
        "effective_performance_issue_same": False,
        "loadgen_git_status_message": "",
    }
    for seed, value in rules.seeds.model_dump().items():
        expected[f"effective_{seed}"] = value
    if loadgen.min_query_count is not None:
        expected["requested_min_query_count"] = loadgen.min_query_count
    if rules.token_latencies:
        expected["requested_use_token_latencies"] = True
    if not offline and rules.token_latencies:
        expected["requested_server_ttft_latency"] = _ns(rules.ttft_ms)
        expected["requested_server_tpot_latency"] = _ns(rules.tpot_ms)
    elif not offline:
        expected["effective_target_latency_ns"] = _ns(rules.latency_ms)
    return expected


def _ns(milliseconds: float | None) -> int:
    return round((milliseconds or 0) * NS_PER_MS)


def _distribution(detail: Detail, template: str) -> dict[str, float]:
    """Percentiles in ms, as LoadGen prints them (six significant digits)."""
    return {
        f"p{float(percentile):g}": detail.get(template.format(percentile)) / NS_PER_MS
        for percentile in PERCENTILES
    }


if __name__ == "__main__":
    main("performance_check", PerformanceCheckConfig, step)
