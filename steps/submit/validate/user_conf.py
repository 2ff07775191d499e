"""user.conf: the settings for LoadGen, compared with its log."""

import math
from collections.abc import Mapping

from steps.base.untrusted import Damaged, text_of
from steps.mlperf.detail import Detail
from steps.mlperf.loadgen import USER_CONF
from steps.mlperf.user_conf import loadgen_model, read_settings
from steps.submit.validate.findings import Findings
from steps.submit.validate.performance import Judge

LOADGEN_SCENARIOS = ("Offline", "Server", "SingleStream", "MultiStream")
LOGGED: Mapping[str, str] = {
    "target_qps": "effective_target_qps",
    "min_duration": "requested_min_duration_ms",
    "performance_sample_count_override": "requested_performance_sample_count_override",
}
"""Keys of user.conf, and where LoadGen logs the value it used."""

OPEN_ONLY: Mapping[str, tuple[str, ...]] = {
    "use_token_latencies": LOADGEN_SCENARIOS,
    "infer_token_latencies": LOADGEN_SCENARIOS,
    "ttft_latency": ("Server",),
    "tpot_latency": ("Server",),
    "target_latency": ("Server",),
    "target_latency_percentile": ("Server", "SingleStream", "MultiStream"),
    "samples_per_query": ("MultiStream",),
}
"""Keys that "make the results eligible only for open submissions", and the scenarios in which
LoadGen 5.1 and 6.0 reads them (test_settings_internal.cc, FromConfig). target_latency of
SingleStream and MultiStream is what a user expects, as target_qps is."""

PERCENTILES: Mapping[str, float] = {"SingleStream": 90, "MultiStream": 99, "Server": 99}
SAMPLES_PER_QUERY = 8
"""mlperf.conf's value for every benchmark without its own."""

SAME = 1e-5
"""LoadGen logs six significant digits."""


def check_user_conf(judge: Judge, official: str, detail: Detail) -> None:
    """`official`: the benchmark's official name."""
    tree, place, findings = judge.tree, judge.place, judge.findings
    path = f"{place.measurements}/{USER_CONF}"
    if not tree.is_file(path):
        return  # reported with the other files of the measurement
    try:
        text = text_of(tree.at(path))
    except Damaged as damage:
        findings.add("user-conf-damaged", path, str(damage), line=damage.line)
        return
    model = loadgen_model(official, place.official_scenario, judge.benchmark.loadgen_model)
    settings = _settings(path, text, model, judge.ran, findings)
    own = _own(judge)
    for key, scenarios in OPEN_ONLY.items():
        if key in settings and place.closed and judge.ran in scenarios:
            line, value = settings[key]
            if value != own.get(key):
                findings.add("user-conf-open-only", path, f"{key} = {value:g}", line=line)
    for key, logged in LOGGED.items():
        actual = detail.number(logged)
        if key in settings and actual is not None:
            line, value = settings[key]
            if not math.isclose(value, actual, rel_tol=SAME):
                what = f"{key} is {value:.10g}, the performance log says {actual:.10g}"
                findings.add("user-conf-contradicts", path, what, line=line)
    if "target_qps" not in settings and judge.ran in ("Offline", "Server"):
        what = f"no target_qps for {judge.ran}"
        findings.add("user-conf-no-target", path, what)


def _own(judge: Judge) -> dict[str, float]:
    """What the round's mlperf.conf and LoadGen's defaults set themselves: saying it again is no
    change.
    """
    benchmark = judge.benchmark
    own = {
        "use_token_latencies": float(benchmark.token_latencies),
        "infer_token_latencies": 0.0,
        "samples_per_query": float(SAMPLES_PER_QUERY),
    }
    if judge.ran in PERCENTILES:
        own["target_latency_percentile"] = PERCENTILES[judge.ran]
    if judge.ran == "Server":
        limits = benchmark.limits.get(judge.scenario, {})
        own |= {f"{name}_latency": limits[f"{name}_ms"] for name in ("ttft", "tpot") if limits}
        targets = benchmark.target_latency_ms
        target = targets.get(judge.scenario, targets.get("Server", math.nan))
        own["target_latency"] = 0 if benchmark.token_latencies else target
    return own | dict(benchmark.mlperf_conf)


def _settings(
    path: str, text: str, model: str, scenario: str, findings: Findings
) -> dict[str, tuple[int, float]]:
    """Line and value of each key that applies to this run; lines that set nothing are reported."""
    found = read_settings(text, model, scenario)
    for number, line in found.damaged.items():
        findings.add("user-conf-damaged", path, f"no setting: {line[:80]}", line=number)
    return found.values
