"""user.conf: what LoadGen was told, beside what its log says it did."""

import math
from collections.abc import Mapping

from steps.base.untrusted import Damaged, text_of
from steps.mlperf.loadgen import USER_CONF, loadgen_scenario
from steps.submit.validate.detail import Detail
from steps.submit.validate.findings import Findings
from steps.submit.validate.tree import Place, Tree

LOGGED: Mapping[str, str] = {
    "target_qps": "effective_target_qps",
    "min_duration": "requested_min_duration_ms",
    "performance_sample_count_override": "requested_performance_sample_count_override",
}
"""Keys of user.conf, and where LoadGen logs what it took."""

OPEN_ONLY = (
    "use_token_latencies",
    "ttft_latency",
    "tpot_latency",
    "target_latency",
    "target_latency_percentile",
    "samples_per_query",
    "sample_concatenate_permutation",
    "infer_token_latencies",
)
"""Keys that no closed submission may set (mlperf.conf of LoadGen 5.1 and 6.0)."""

SAME = 1e-5
"""LoadGen logs six significant digits."""


def check_user_conf(
    tree: Tree, place: Place, official: str, detail: Detail, findings: Findings
) -> None:
    """`official`: the benchmark's official name."""
    path = f"{place.measurements}/{USER_CONF}"
    if not tree.is_file(path):
        return  # reported with the other files of the measurement
    try:
        text = text_of(tree.at(path))
    except Damaged as damage:
        findings.add("user-conf-damaged", path, str(damage), line=damage.line)
        return
    settings = _settings(
        path, text, loadgen_model(official, place.official_scenario), place, findings
    )
    for key in OPEN_ONLY:
        if key in settings and place.closed:
            line, value = settings[key]
            findings.add("user-conf-open-only", path, f"{key} = {value:g}", line=line)
    for key, logged in LOGGED.items():
        actual = detail.number(logged)
        if key in settings and actual is not None:
            line, value = settings[key]
            if not math.isclose(value, actual, rel_tol=SAME):
                what = f"{key} is {value:.10g}, the performance log says {actual:.10g}"
                findings.add("user-conf-contradicts", path, what, line=line)
    if "target_qps" not in settings and place.official_scenario in ("Offline", "Server"):
        what = f"no target_qps for {place.official_scenario}"
        findings.add("user-conf-no-target", path, what)


def loadgen_model(official: str, scenario: str) -> str:
    """The name of a benchmark in LoadGen's mlperf.conf: no points, no accuracy level."""
    name = official.removesuffix("-99.9").removesuffix("-99").replace(".", "_")
    return f"{name}-interactive" if scenario == "Interactive" else name


def _settings(
    path: str, text: str, model: str, place: Place, findings: Findings
) -> dict[str, tuple[int, float]]:
    """Line and value of each key that holds for this run: the more exact key wins."""
    scenario = loadgen_scenario(place.official_scenario)
    found: dict[str, tuple[int, int, float]] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        left, equals, right = (part.strip() for part in line.partition("="))
        parts = left.rsplit(".", 2)
        try:
            value = float(right)
        except ValueError:
            value = math.nan
        if not equals or len(parts) != 3 or math.isnan(value):
            findings.add("user-conf-damaged", path, f"no setting: {line[:80]}", line=number)
            continue
        if parts[0] not in (model, "*") or parts[1] not in (scenario, "*"):
            continue
        # LoadGen looks for model.scenario, *.scenario, model.*, *.* in this order.
        rank = 2 * (parts[1] != "*") + (parts[0] != "*")
        if parts[2] not in found or rank >= found[parts[2]][0]:
            found[parts[2]] = (rank, number, value)
    return {key: (line, value) for key, (_, line, value) in found.items()}
