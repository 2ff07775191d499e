"""What the specs of several steps share: axes, sources, and what a LoadGen run costs."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from steps.config.axes import AXES
from steps.config.runs import PlannedRunConfig
from steps.plan.spec import Config, Cost, StepSpec

WEIGHTS = ("benchmark", "compression", "precision")
"""Axes of what changes the weights."""

WEIGHTS_NEEDS = {"model": "weights", "environment": "environment/prepare"}
RUN_NEEDS = {"model": "weights", "dataset": "dataset", "environment": "environment/engine"}

RUN_SOURCES = (
    "steps/run/sut/*.py",
    "steps/run/engines/*.py",
    "steps/run/placing/*.py",
    "steps/run/journal/*.py",
    "steps/base/threads.py",
    "steps/mlperf/loadgen.py",
    "steps/prepare/samples.py",
    "steps/prepare/checkpoint/mxfp4.py",
    "steps/prepare/checkpoint/formats.py",
)
ENGINE_OPTIONS = ("steps/machine/engine_options.py", "steps/machine/vllm_source.py")
"""What lists the arguments and variables of an environment's or an image's engine."""

WINDOW_SOURCES = (
    "steps/config/verdicts.py",
    "steps/config/window.py",
    "steps/judge/window.py",
    "steps/run/journal/lines.py",
)
"""What every check of a run judges the window by."""

CALIBRATION = ("steps/prepare/calibration.py", "steps/prepare/samples.py")
NOTES = (
    "steps/prepare/rehearsal/dataset.py",
    "steps/prepare/rehearsal/notes.py",
    "steps/prepare/rehearsal/tokenizer.py",
)
CONFIDENTIAL = ("steps/base/confidential/*", "steps/submit/confidential.py")

ENVIRONMENTS = {
    "cpu": (180.0, 3.6),
    "analysis": (40.0, 0.5),
    "compress": (120.0, 1.9),
    "images": (60.0, 1.2),
}
"""Seconds and gigabytes of a first installation, measured on two cores, November 2026."""

START_S = 40.0
"""Start of an engine and its LoadGen process: 25 to 60 s on two busy cores, November 2026."""

SAMPLE_BYTES = 1500
"""Log bytes per sample: an accuracy log's hexadecimal tokens plus a line of samples.csv."""

ENGINES = ("vllm", "vllm-rocm", "null")
"""Kinds of engines that steps/run/sut can start."""


def environment_cost(key: str, config: Config, samples: int) -> Cost:
    """`key` names a lock; of one that was never measured, the largest."""
    return Cost(*ENVIRONMENTS.get(key, ENVIRONMENTS["cpu"]))


def run_cost(samples: float, rate: float) -> Cost:
    """A LoadGen run of so many samples at so many per second."""
    return Cost(START_S + samples / rate, samples * SAMPLE_BYTES / 1e9)


def performance_cost(key: str, config: Config, samples: int) -> Cost:
    """A LoadGen run in PerformanceOnly mode: its length follows from the rules, not the dataset."""
    loadgen, rules = config["loadgen"], config["rules"]
    duration_s = (loadgen["min_duration_ms"] or rules["min_duration_ms"]) / 1000
    copy = loadgen["performance_sample_count_override"] or rules["performance_sample_count"]
    # Equal issue: LoadGen rounds up to whole copies of the dataset (facts of LoadGen 5.1.2).
    copies = max(1, -(-duration_s * loadgen["target_qps"] // copy))
    issued = max(copies * copy, loadgen["min_query_count"] or 0)
    return run_cost(issued, loadgen["target_qps"])


def engine_limitation(config: Config) -> str | None:
    """Engines of other kinds, and placements of those that can be started."""
    engine = config["engine"]
    kind, placement = engine.get("kind", ENGINES[0]), engine.get("placement", {})
    if kind not in ENGINES:
        return f"this version can't start engine {kind}"
    used: dict[str, set[int]] = {}
    for one in placement.get("kinds", ()):
        used.setdefault(one["hardware"], set()).add(one["accelerator"]["count_per_node"])
    if uneven := next((name for name, counts in used.items() if len(counts) > 1), None):
        return (
            f"this version starts as many engines on every node of {uneven}, and nodes of this "
            "cluster use different numbers of accelerators"
        )
    if placement.get("kinds") and placement["cluster"] in ("local", "slurm"):
        return (
            f"placement.cluster={placement['cluster']} starts engines on several nodes only where "
            "they need no accelerators; name the nodes in cluster.hosts, or a cluster of Ray as "
            "auto or HOST:PORT"
        )
    return None


def loadgen_run(
    module: str,
    says: str,
    config: type[BaseModel],
    cost: Callable[[str, Config, int], Cost],
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
        sources=RUN_SOURCES,
        limitation=engine_limitation,
        cost=cost,
        **more,
    )
