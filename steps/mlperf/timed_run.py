"""What a round demands of the log of a timed run, each rule once.

The check of our own runs and the validator of a stranger's tree hold a log against the same
Demands, and put what it breaks into words of their own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from steps.mlperf.detail import Detail
from steps.mlperf.loadgen import LATENCY_KEY, P99, TPOT_KEY, TTFT_KEY

NS_PER_MS = 1_000_000

Rule = Literal[
    "error",
    "errors",
    "limit",
    "met",
    "validity",
    "mode",
    "scenario",
    "seed",
    "equal-issue",
    "token-latencies",
    "min-duration",
    "sample-count",
    "dataset",
    "offline-samples",
    "min-queries",
    "judged-limit",
    "target-latency",
    "audit",
]

MET = (
    *("result_min_duration_met", "result_min_queries_met"),
    *("result_perf_constraints_met", "early_stopping_met"),
)
"""The last two are absent where a scenario has no such constraint."""

TOKEN_KEYS: Mapping[str, str] = {"ttft": TTFT_KEY.format(P99), "tpot": TPOT_KEY.format(P99)}

AUDIT_NUMBERS = (
    "effective_accuracy_log_sampling_target",
    "effective_accuracy_log_probability",
    "effective_accuracy_log_rng_seed",
)
AUDIT_FLAGS = ("effective_performance_issue_unique", "effective_performance_issue_same")


@dataclass(frozen=True)
class Demands:
    """`scenario`: LoadGen's name of it. `sample_count`, `min_duration_ms`: at least. `dataset`:
    samples that the QSL has to have, `offline_samples`: that Offline's query has; None: any.

    `limits_ms`: of the p99, by "ttft" and "tpot": it stays below them. `latency_ms`: of the p99 of
    whole samples, which LoadGen lets reach it. `target_latency_ms`: of the setting that LoadGen
    judges whole samples by.
    """

    scenario: str
    seeds: Mapping[str, int]
    min_duration_ms: int
    sample_count: int
    equal_issue: bool
    token_latencies: bool
    limits_ms: Mapping[str, float]
    latency_ms: float | None = None
    target_latency_ms: float | None = None
    dataset: int | None = None
    offline_samples: int | None = None


@dataclass(frozen=True)
class Breach:
    """A rule that a log breaks. `found` None: the log has no such key. `wanted`: a bound, or what
    the value had to be. `line`: where it stands, 0 if nowhere."""

    rule: Rule
    key: str
    found: Any
    wanted: Any
    line: int


def breaches(detail: Detail, demands: Demands) -> Iterator[Breach]:
    """All of them but `audited`, the most telling first: numbers against their limits before
    LoadGen's general word."""
    yield from _errors(detail)
    yield from _limits(detail, demands)
    for key in MET:
        if detail.values.get(key) is not True:
            yield _breach("met", detail, key, True)
    if detail.values.get("result_validity") != "VALID":
        yield _breach("validity", detail, "result_validity", "VALID")
    yield from _exact(detail, demands)
    yield from _least(detail, demands)
    yield from _judged(detail, demands)


def audited(detail: Detail) -> Iterator[Breach]:
    """A performance run with a compliance test's settings measures something else."""
    for key in AUDIT_NUMBERS:
        if detail.values.get(key) != 0:
            yield _breach("audit", detail, key, 0)
    for key in AUDIT_FLAGS:
        if detail.values.get(key) is not False:
            yield _breach("audit", detail, key, False)


def seeds(detail: Detail, wanted: Mapping[str, int]) -> Iterator[Breach]:
    """Those that aren't the round's, which any run has to have."""
    for name, seed in wanted.items():
        if detail.values.get(f"effective_{name}") != seed:
            yield _breach("seed", detail, f"effective_{name}", seed)


def _breach(rule: Rule, detail: Detail, key: str, wanted: Any) -> Breach:
    return Breach(rule, key, detail.values.get(key), wanted, detail.line(key))


def _errors(detail: Detail) -> Iterator[Breach]:
    """LoadGen counts those that end a run early in no number."""
    for error in detail.errors:
        yield Breach("error", error.key, error.value, None, error.line)
    if detail.values.get("num_errors") != 0:
        yield _breach("errors", detail, "num_errors", 0)


def _limits(detail: Detail, demands: Demands) -> Iterator[Breach]:
    for name, limit_ms in demands.limits_ms.items():
        found = detail.number(TOKEN_KEYS[name])
        if found is None or not found < limit_ms * NS_PER_MS:
            yield _breach("limit", detail, TOKEN_KEYS[name], limit_ms * NS_PER_MS)
    if demands.latency_ms is not None:
        found = detail.number(LATENCY_KEY.format(P99))
        if found is None or not found <= demands.latency_ms * NS_PER_MS:
            wanted = demands.latency_ms * NS_PER_MS
            yield _breach("limit", detail, LATENCY_KEY.format(P99), wanted)


def _exact(detail: Detail, demands: Demands) -> Iterator[Breach]:
    exact: list[tuple[Rule, str, Any]] = [
        ("scenario", "effective_scenario", demands.scenario),
        ("mode", "effective_test_mode", "PerformanceOnly"),
    ]
    if demands.equal_issue:
        exact.append(("equal-issue", "effective_sample_concatenate_permutation", True))
    if demands.token_latencies:
        exact.append(("token-latencies", "requested_use_token_latencies", True))
    for rule, key, wanted in exact:
        if detail.values.get(key) != wanted:
            yield _breach(rule, detail, key, wanted)
    yield from seeds(detail, demands.seeds)


def _least(detail: Detail, demands: Demands) -> Iterator[Breach]:
    least: list[tuple[Rule, str, int | None]] = [
        ("min-duration", "effective_min_duration_ms", demands.min_duration_ms),
        ("sample-count", "effective_performance_sample_count", demands.sample_count),
        ("dataset", "qsl_reported_total_count", demands.dataset),
    ]
    if demands.scenario == "Offline" and demands.offline_samples is not None:
        least += [
            ("offline-samples", "effective_samples_per_query", demands.offline_samples),
            ("min-queries", "effective_min_query_count", 1),
        ]
    for rule, key, wanted in least:
        found = detail.number(key)
        if wanted is not None and (found is None or found < wanted):
            yield _breach(rule, detail, key, wanted)


def _judged(detail: Detail, demands: Demands) -> Iterator[Breach]:
    """LoadGen's own verdict counts only if it judged by the round's limits, or tighter ones."""
    for name, limit_ms in demands.limits_ms.items():
        key = f"requested_server_{name}_latency"
        found = detail.number(key)
        if found is None or found > limit_ms * NS_PER_MS:
            yield _breach("judged-limit", detail, key, limit_ms * NS_PER_MS)
    if demands.target_latency_ms is not None and detail.text("effective_scenario") == "Server":
        key = "effective_target_latency_ns"
        found = detail.number(key)
        if found is None or found > demands.target_latency_ms * NS_PER_MS:
            yield _breach("target-latency", detail, key, demands.target_latency_ms * NS_PER_MS)
