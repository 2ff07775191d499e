"""What the specs of several steps share: axes, inputs, and what a LoadGen run costs."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from steps.config.axes import AXES
from steps.config.mirror import ADDRESS
from steps.config.runs import PlannedRunConfig
from steps.plan.rates import PLACE
from steps.plan.spec import Config, Cost, Facts, StepSpec

WEIGHTS = ("benchmark", "compression", "precision")
"""Axes of what changes the weights."""

WEIGHTS_NEEDS = {"model": "weights", "environment": "environment/prepare"}
RUN_NEEDS = {"model": "weights", "dataset": "dataset", "environment": "environment/engine"}

ENVIRONMENTS = {
    "cpu": (180.0, 3.6),
    "analysis": (40.0, 0.5),
    "compress": (120.0, 1.9),
    "images": (60.0, 1.2),
}
"""Seconds and gigabytes of a first installation, measured on two cores, November 2026."""

START_S = 40.0
"""Start of an engine and its LoadGen process: 25 to 60 s on two busy cores, November 2026."""

LINE_BYTES = 300
"""Bytes of a sample in every log: its line of samples.csv, and what is around a logged answer."""

ENGINES = ("vllm", "vllm-rocm", "null", "diffusers")
"""Kinds of engines that steps/run/sut can start."""


def environment_cost(key: str, config: Config, facts: Facts) -> Cost:
    """`key` names a lock; of one that was never measured, the largest."""
    return Cost(*ENVIRONMENTS.get(key, ENVIRONMENTS["cpu"]))


def mirrored(config: Config) -> bool:
    """What it takes comes from a mirror on this machine, which has small weights and data."""
    return bool(config.get("fetch") and config["fetch"]["endpoint"] == ADDRESS)


def rewritten(facts: Facts, read_gb: float, written_gb: float) -> Cost:
    """Weights made of others on one disk."""
    moved = read_gb + written_gb
    basis = f"{moved:.0f} GB read and written at {facts.rates.disk_mb_s:g} MB/s ({PLACE})"
    return Cost(facts.rates.disk_s(moved), written_gb, basis=basis, rough=True)


def answer_bytes(generation: Config) -> float:
    """Bytes of an answer in an accuracy log, which is hexadecimal: the pixels of an image, or the
    most tokens that an answer has, of four bytes each."""
    if "size" in generation:
        return 2.0 * 3 * float(generation["size"]) ** 2
    return 2.0 * 4 * float(generation["max_tokens"])


def run_cost(config: Config, facts: Facts, samples: float, logged: float) -> Cost:
    """A LoadGen run of so many samples at its target rate, and of so many logged answers."""
    answers = logged * answer_bytes(config["generation"])
    weights_s = facts.rates.disk_s(facts.weights_gb or 0.0)
    return Cost(
        START_S + weights_s + samples / config["loadgen"]["target_qps"],
        (samples * LINE_BYTES + answers) / 1e9,
    )


LOADGEN_SLACK = 1.1
"""LoadGen's Offline query has this many times target_qps x min_duration samples (loadgen.cc)."""


def performance_cost(key: str, config: Config, facts: Facts, logged: float = 0) -> Cost:
    """A LoadGen run in PerformanceOnly mode: its length follows from the rules, not the dataset."""
    loadgen, rules = config["loadgen"], config["rules"]
    duration_s = (loadgen["min_duration_ms"] or rules["min_duration_ms"]) / 1000
    slack = LOADGEN_SLACK if config["scenario"] == "Offline" else 1
    due = duration_s * loadgen["target_qps"] * slack
    copy = loadgen["performance_sample_count_override"] or rules["performance_sample_count"]
    if "size" not in config["generation"]:
        # Equal issue: LoadGen rounds up to whole copies of the dataset (facts of LoadGen 5.1.2).
        due = max(1, -(-due // copy)) * copy
    return run_cost(config, facts, max(due, loadgen["min_query_count"] or 0), logged)


NOT_DRIVEN: Mapping[str, str] = {
    "llmboost": "closed software of MangoBoost's; engine=vllm, or engine=llama2-70b on MI300X and "
    "MI325X, runs the row as another software",
    "unpublished": "its submitter published neither settings nor image",
    "shark": "AMD's shark-ai compiles for its accelerators by forks of its own; "
    "experiment=sdxl-diffusers runs the row as another software",
}
"""Why a kind of engine is only planned, and what can be run in its place."""


def engine_limitation(config: Config) -> str | None:
    """Engines of other kinds, and placements of those that can be started."""
    engine = config["engine"]
    kind, placement = engine.get("kind", ENGINES[0]), engine.get("placement", {})
    if kind not in ENGINES:
        why = f" ({NOT_DRIVEN[kind]})" if kind in NOT_DRIVEN else ""
        return f"this version can't start engine {kind}{why}"
    if placement.get("kinds") and placement["cluster"] == "local":
        return (
            "placement.cluster=local has all nodes on this machine, and so none for engines that "
            "need accelerators; name the nodes in cluster.hosts, or a cluster of Ray as auto or "
            "HOST:PORT"
        )
    return None


def unused_by_engine(config: Config) -> tuple[str, ...]:
    """Settings of the engine that a run in this scenario doesn't use, and limits by which it ends
    or not, with the same result.
    """
    found = ["engine.start_limit_s"]
    placement = config["engine"].get("placement", {})
    if "nodes_loading" in placement:
        found.append("engine.placement.nodes_loading")
    if placement.get("on_failure") == "fail":
        found.append("engine.stall_limit_s")
    if config["scenario"] != "Offline":
        found.append("engine.offline_order")
    return tuple(found)


def unused_by_timed(config: Config) -> tuple[str, ...]:
    """What a setting of the run takes the place of, besides."""
    loadgen, found = config["loadgen"], unused_by_engine(config)
    if loadgen["performance_sample_count_override"] is not None:
        found += ("rules.performance_sample_count",)
    if loadgen["min_duration_ms"] is not None:
        found += ("rules.min_duration_ms",)
    return found


def unused_by_untimed(config: Config) -> tuple[str, ...]:
    """The duration of a run whose samples are counted beforehand, and the rate that LoadGen
    multiplies with it in Offline. Server and Interactive send at that rate whatever they count.
    """
    counted = config["scenario"] == "Offline" and config["loadgen"]["min_duration_ms"] is None
    rate = ("loadgen.target_qps",) if counted else ()
    return (*unused_by_timed(config), "rules.min_duration_ms", *rate)


def loadgen_run(
    module: str,
    says: str,
    config: type[BaseModel],
    cost: Callable[[str, Config, Facts], Cost],
    **more: Any,
) -> StepSpec:
    """One of LoadGen's runs of a cell: an engine that starts has all nodes of its system."""
    return StepSpec(
        module=module,
        says=says,
        config=config,
        planned=PlannedRunConfig,
        stage="runs",
        environment="engine",
        place="nodes",
        axes=AXES,
        needs=RUN_NEEDS,
        limitation=engine_limitation,
        cost=cost,
        **more,
    )
