"""Facts of a published run, from its mlperf_log_detail.txt."""

from datetime import datetime
from pathlib import Path
from typing import Any

from steps.mlperf.detail import Detail, read_detail
from steps.mlperf.loadgen import DETAIL, LATENCY_KEY, P99, TPOT_KEY, TTFT_KEY
from steps.mlperf.published.result import RunFacts

LOG = f"performance/run_1/{DETAIL}"
TIME = "%m-%d-%Y %H:%M:%S.%f"
"""How LoadGen writes power_begin and power_end."""

MS_NS = 1_000_000


def run_facts(location: Path) -> RunFacts | None:
    """None if the directory of a result has no log. Raises UserError for a damaged log."""
    path = location / LOG
    if not path.is_file():
        return None
    log = read_detail(path)
    scenario = str(log.get("requested_scenario")).lower()
    tokens = bool(log.values.get("requested_use_token_latencies")) and scenario != "offline"
    whole = scenario == "server" and not tokens
    samples = (
        "result_samples_per_second" if scenario == "offline" else "result_completed_samples_per_sec"
    )
    limit = _number(log, f"requested_{scenario}_ttft_latency")
    return RunFacts(
        loadgen_version=str(log.get("loadgen_version")).replace(" ", ""),
        target_qps=_number(log, "effective_target_qps"),
        min_duration_s=_scaled(_number(log, "effective_min_duration_ms"), 1000),
        duration_s=_duration(log),
        samples_per_second=_number(log, samples),
        ttft_p99_ms=_percentile(log, LATENCY_KEY.format(P99))
        if whole
        else _percentile(log, TTFT_KEY.format(P99), tokens),
        ttft_limit_ms=_scaled(_number(log, "effective_target_latency_ns"), MS_NS)
        if whole
        else _scaled(limit, MS_NS)
        if tokens
        else None,
        tpot_p99_ms=_percentile(log, TPOT_KEY.format(P99), tokens),
        tpot_limit_ms=_scaled(_number(log, f"requested_{scenario}_tpot_latency"), MS_NS)
        if tokens
        else None,
    )


def _percentile(log: Detail, key: str, wanted: bool = True) -> float | None:
    return _scaled(_number(log, key), MS_NS) if wanted else None


def _duration(log: Detail) -> float | None:
    try:
        begin, end = (
            datetime.strptime(str(log.values[key]), TIME) for key in ("power_begin", "power_end")
        )
    except (KeyError, ValueError):
        return None
    return round((end - begin).total_seconds(), 1)


def _number(log: Detail, key: str) -> float | None:
    value: Any = log.values.get(key)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _scaled(value: float | None, divisor: int) -> float | None:
    return None if value is None else round(value / divisor, 3)
