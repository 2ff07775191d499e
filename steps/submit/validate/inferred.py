"""Results of edge systems that are inferred from another scenario's run.

Inference rules, "Required scenarios" of the edge suite: MultiStream from SingleStream, Offline from
either; the directory of the inferred result holds a copy of the run it was inferred from.
"""

from collections.abc import Mapping

from steps.submit.validate.detail import Detail

SOURCES: Mapping[str, tuple[str, ...]] = {
    "Offline": ("SingleStream", "MultiStream"),
    "MultiStream": ("SingleStream",),
}
SAMPLES_PER_QUERY = 8
"""Of a MultiStream query (mlperf.conf of LoadGen 5.1 and 6.0)."""

NS_PER_MS = 1_000_000


def source(scenario: str, detail: Detail, *, edge: bool) -> str:
    """The scenario that an inferred result was run in; "" if it was run in its own."""
    ran = detail.text("effective_scenario")
    return ran if edge and ran in SOURCES.get(scenario, ()) else ""


def value(scenario: str, ran: str, detail: Detail) -> tuple[str, float | None]:
    """The log's key that the result comes from, and the result: ms or samples/s."""
    if scenario == "MultiStream":
        key = "early_stopping_latency_ms"
        latency = detail.number(key)
        return key, None if not latency else SAMPLES_PER_QUERY * latency / NS_PER_MS
    if ran == "SingleStream":
        key = "result_qps_without_loadgen_overhead"
        return key, detail.number(key)
    key = "result_mean_query_latency_ns"
    mean, samples = detail.number(key), detail.number("effective_samples_per_query")
    return key, 1000 * samples / (mean / NS_PER_MS) if mean and samples else None
