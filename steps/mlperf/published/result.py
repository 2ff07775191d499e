"""One result, published or own, as every comparison reads it."""

import math
import re
from functools import cache
from typing import Literal

from steps.base.strict import Strict

UNITS = ("Tokens/s", "Samples/s", "Queries/s")
"""Units of throughput in summary_results.json."""

LATENCIES = ("Latency (ms)", "Latency (s)")
"""Units of SingleStream and MultiStream: less is better, and no comparison here uses them."""


class RunFacts(Strict):
    """Facts from a performance run's logs beside its result; None where absent.

    `target_qps` is samples per second; percentiles and limits are in ms, durations in s.
    For SDXL Server `ttft_p99_ms` is the latency of the whole sample, as the limit is (20 s).
    """

    loadgen_version: str
    target_qps: float | None
    min_duration_s: float | None
    duration_s: float | None
    samples_per_second: float | None
    ttft_p99_ms: float | None
    ttft_limit_ms: float | None
    tpot_p99_ms: float | None
    tpot_limit_ms: float | None


class Result(Strict):
    """`value` is None where the source has no positive, finite number; `problems` says so.

    `id` is MLCommons' public ID (one for all results of a system) or, for own results, the name
    of the experiment. `benchmark` is the round's name ("llama2-70b-99"), `model` the
    submitter's. `precision` is weight_data_types as submitted. `location` is the path below the
    round's repository, or that of an own run's log, from the report. `compression` is known of own
    results only; published ones have it in their model's name.
    """

    source: Literal["published", "own"]
    round: str
    id: str
    submitter: str
    availability: str
    division: str
    suite: str
    system: str
    platform: str
    benchmark: str
    model: str
    scenario: str
    nodes: int | None
    accelerators_per_node: int | None
    accelerator: str
    processor: str
    processors_per_node: int | None
    software: str
    operating_system: str
    precision: str
    accuracy: dict[str, float]
    value: float | None
    unit: str
    location: str
    run: RunFacts | None = None
    compression: str = ""
    problems: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether there is a throughput to compare, without known problems."""
        return self.value is not None and not self.problems and self.unit in UNITS

    @property
    def number(self) -> float:
        """The value of a comparable result."""
        if self.value is None or not self.comparable:
            raise ValueError(f"{self.name} can't be compared: {self.reason}")
        return self.value

    @property
    def reason(self) -> str:
        """Why it can't be compared; "" if it can."""
        known = () if self.unit in UNITS else (f"{self.unit} is no throughput",)
        return "; ".join(self.problems or known)

    @property
    def name(self) -> str:
        """How the command line and the page name one result."""
        return f"{self.id}/{self.model}/{self.scenario}"

    @property
    def gpus(self) -> dict[str, int]:
        """Accelerators of the whole system by short name; empty if the source doesn't say."""
        return accelerators(self.accelerator, self.nodes, self.accelerators_per_node)

    @property
    def accelerators(self) -> int | None:
        """How many the whole system has; None if the source doesn't say."""
        return sum(self.gpus.values()) or None

    @property
    def gpu(self) -> str:
        """The short name of the accelerators, "MI300X + MI325X" for a mixed system."""
        return _gpu(self.accelerator, self.nodes, self.accelerators_per_node)


def accelerators(text: str, nodes: int | None, per_node: int | None) -> dict[str, int]:
    """Count by short name: "AMD Instinct MI300X 192GB HBM3 (x32), ... (x16)" or one kind a node.

    The count of the name is the true one where nodes don't all have as many: 87 of 11 nodes of 8.
    """
    counted = re.findall(r"([^,()]+) \(x(\d+)\)", text)
    if counted:
        return {short_name(name): int(count) for name, count in counted}
    name = short_name(text)
    if not name or nodes is None or per_node is None or per_node == 0:
        return {}
    return {name: nodes * per_node}


@cache
def _gpu(text: str, nodes: int | None, per_node: int | None) -> str:
    return " + ".join(accelerators(text, nodes, per_node))


def short_name(accelerator: str) -> str:
    """ "AMD Instinct MI325X 256GB HBM3e" is MI325X; others lose only the vendor's name.

    What stands in brackets makes another accelerator of it: "MI355X (Power Cap 1000 W)".
    """
    if found := re.search(r"\bMI\d{3}[A-Za-z]?\b", accelerator):
        limited = re.search(r"\([^)]*\)", accelerator)
        return found[0].upper() + (f" {limited[0]}" if limited else "")
    name = accelerator.replace("NVIDIA ", "").strip()
    return "" if name.upper() in ("N/A", "NONE") else name


def judged(value: object, unit: str) -> tuple[float | None, tuple[str, ...]]:
    """The number if it can be compared, and the problems with it."""
    known = unit in (*UNITS, *LATENCIES)
    problems = [] if known else [f"unit {unit!r} is not a throughput this project knows"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, (f"the result is {value!r}, not a number", *problems)
    if not math.isfinite(value) or value <= 0:
        return None, (f"the result is {value}, not a positive number", *problems)
    return float(value), tuple(problems)


def accuracy_metrics(text: str) -> dict[str, float]:
    """From "ROUGE1: 44.4542  ROUGE2: 22.0419": every name with its number, others left out."""
    found: dict[str, float] = {}
    for name, number in re.findall(r"([A-Za-z_]\w*):\s*(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)", text):
        found[name] = float(number)
    return found


def marked_duplicates(results: list[Result]) -> list[Result]:
    """Marks all results that the source gives more than once for one system with that problem."""
    counts: dict[tuple[str, ...], int] = {}
    for result in results:
        counts[_identity(result)] = counts.get(_identity(result), 0) + 1
    return [
        result
        if counts[_identity(result)] == 1
        else result.model_copy(
            update={
                "problems": (
                    *result.problems,
                    f"{counts[_identity(result)]} rows for one system, model and scenario",
                )
            }
        )
        for result in results
    ]


def _identity(result: Result) -> tuple[str, ...]:
    return (
        result.round,
        result.division,
        result.submitter,
        result.platform,
        result.benchmark,
        result.model,
        result.scenario,
    )
