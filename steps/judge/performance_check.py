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
from steps.judge.disturbances import differences_of, window_of
from steps.mlperf.detail import Detail, read_detail
from steps.mlperf.early_stopping import allowed_misses
from steps.mlperf.loadgen import DETAIL, LATENCY_KEY, P99, TPOT_KEY, TTFT_KEY, loadgen_scenario
from steps.mlperf.timed_run import (
    AUDIT_NUMBERS,
    NS_PER_MS,
    TOKEN_KEYS,
    Breach,
    Demands,
    audited,
    breaches,
)

PERCENTILES = ("50.00", "90.00", "95.00", "97.00", P99, "99.90")

MAY_LACK = ("result_perf_constraints_met", "early_stopping_met", *AUDIT_NUMBERS[1:])
"""Absent where a scenario has no such constraint, and where no test samples answers."""


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
    """What a strict reading of the round's rules finds wrong, the most telling first, then settings
    that aren't the configured ones.

    Stricter than submission_checker.py of v5.1.1, which looks neither at the test mode nor at
    audit settings, nor at errors that num_errors doesn't count.
    """
    told = set[str]()
    for one in (*breaches(detail, demands(config)), *audited(detail)):
        if one.rule == "error" and "error" in told:
            continue
        told.add(one.rule if one.rule == "error" else one.key)
        if one.found is not None:
            yield _complaint(one, detail, config)
        elif one.key not in MAY_LACK:
            detail.get(one.key)
    for key, expected in _configured(config).items():
        if detail.get(key) != expected and key not in told:
            yield _unexpected(key, detail.get(key), expected)


def demands(config: PerformanceCheckConfig) -> Demands:
    """The demands on a run as it was configured: where that leaves the round, the plan says so."""
    rules, loadgen = config.rules, config.loadgen
    served = config.scenario != "Offline"
    tokens = {"ttft": rules.ttft_ms, "tpot": rules.tpot_ms} if served else {}
    return Demands(
        scenario=loadgen_scenario(config.scenario),
        seeds=rules.seeds.model_dump(),
        min_duration_ms=loadgen.least_ms(rules),
        sample_count=loadgen.sample_count(rules),
        equal_issue=rules.equal_issue,
        token_latencies=rules.token_latencies,
        limits_ms={name: limit for name, limit in tokens.items() if limit is not None},
        latency_ms=rules.latency_ms if served else None,
        target_latency_ms=None if rules.token_latencies else rules.latency_ms,
    )


def _complaint(one: Breach, detail: Detail, config: PerformanceCheckConfig) -> Complaint:
    match one.rule:
        case "error":
            words = f"LoadGen reported an error on line {one.line}: {one.key}: {one.found}"
            return Complaint(code="error", words=words)
        case "errors":
            words = f"num_errors is {one.found}"
            return Complaint(code="num_errors", words=words, value=plain(one.found), limit=0.0)
        case "limit":
            return _over(one, detail, config)
        case "met":
            return _unmet(one.key, detail, config)
        case "validity":
            reason = detail.values.get("result_invalid_reason") or "early stopping was not met"
            words = f"LoadGen says {one.found}: {reason}"
            return Complaint(code=one.key, words=words, value=plain(one.found), limit="VALID")
    return _unexpected(one.key, one.found, one.wanted)


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


NAMES = {key: name.upper() for name, key in TOKEN_KEYS.items()}


def _over(one: Breach, detail: Detail, config: PerformanceCheckConfig) -> Complaint:
    name = NAMES.get(one.key, "latency")
    value_ms, limit_ms = one.found / NS_PER_MS, one.wanted / NS_PER_MS
    return Complaint(
        code=name.lower(),
        words=f"p99 {name} is {value_ms:.1f} ms at {detail.get('effective_target_qps'):g} "
        f"queries/s, the limit of {config.scenario} is {limit_ms:g} ms",
        value=plain(value_ms),
        limit=limit_ms,
        fix=f"lower set.{config.scenario}.target_qps, or end what else runs on this machine",
    )


def _configured(config: PerformanceCheckConfig) -> dict[str, Any]:
    """Settings that the log must show, whatever the round demands."""
    rules, loadgen = config.rules, config.loadgen
    offline = config.scenario == "Offline"
    expected: dict[str, Any] = {
        "effective_target_qps": loadgen.target_qps,
        "effective_min_duration_ms": loadgen.least_ms(rules),
        "effective_performance_sample_count": loadgen.sample_count(rules),
        "effective_sample_concatenate_permutation": rules.equal_issue,
        "loadgen_git_status_message": "",
    }
    if loadgen.min_query_count is not None:
        expected["requested_min_query_count"] = loadgen.min_query_count
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
