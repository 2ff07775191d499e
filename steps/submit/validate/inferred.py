"""Results of edge systems that are inferred from another scenario's run.

Inference rules, "Required scenarios" of the edge suite: MultiStream from SingleStream, Offline from
either; the directory of the inferred result has a copy of the run it was inferred from.
"""

import math
from collections.abc import Mapping

from steps.mlperf.detail import Detail

SOURCES: Mapping[str, tuple[str, ...]] = {
    "Offline": ("SingleStream", "MultiStream"),
    "MultiStream": ("SingleStream",),
}
SAMPLES_PER_QUERY = 8
"""A MultiStream query has so many (mlperf.conf of LoadGen 5.1 and 6.0)."""

NS_PER_MS = 1_000_000
MS_PER_S = 1000


def source(scenario: str, detail: Detail, *, edge: bool) -> str:
    """The scenario that an inferred result was run in; "" if it was run in its own."""
    ran = detail.text("effective_scenario")
    return ran if edge and ran in SOURCES.get(scenario, ()) else ""


def value(scenario: str, ran: str, detail: Detail) -> tuple[str, float | None]:
    """The log's key that the result comes from, and the result: ms or samples/s, computed as the
    official checker does, to the last bit.
    """
    if scenario == "MultiStream":
        key = "early_stopping_latency_ms"
        latency = detail.number(key)
        return key, None if latency is None else _finite(latency * SAMPLES_PER_QUERY / NS_PER_MS)
    if ran == "SingleStream":
        key = "result_qps_without_loadgen_overhead"
        return key, detail.number(key)
    key = "result_mean_query_latency_ns"
    samples = detail.number("effective_samples_per_query")
    mean_ms = (detail.number(key) or 0) / NS_PER_MS
    return key, _finite(samples * MS_PER_S / mean_ms) if samples and mean_ms else None


def _finite(found: float) -> float | None:
    return found if math.isfinite(found) else None
