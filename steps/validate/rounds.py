"""The constants of a round that a validator needs, from `rounds/<round>.json`.

What `conf/round/<round>.yaml` also has carries the same name there.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from steps.errors import UserError

ROUNDS = Path(__file__).with_name("rounds")
SCENARIOS = ("Offline", "Server", "Interactive", "SingleStream", "MultiStream")
DIVISIONS = ("closed", "open", "network")
STATUSES = ("available", "preview", "rdi")
SYSTEM_TYPES: Mapping[str, str] = {
    "datacenter": "datacenter",
    "edge": "edge",
    "datacenter,edge": "datacenter-edge",
    "edge,datacenter": "datacenter-edge",
}
"""`system_type` of a system description, and its table of required scenarios."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of a round. Counts are samples; `limits` and `target_latency_ms` are p99.

    `required` and `optional` map a type of system to scenarios. `accuracy_min` and `accuracy_max`
    map metrics to inclusive bounds, or scenarios to such maps. `compliance_files` maps a directory
    beside accuracy.txt to the stems of the files it must hold.
    """

    performance_sample_count: int
    dataset_size: int
    offline_min_samples: int | None
    accuracy_sample_count: int | Mapping[str, int] | None
    compliance_tests: list[str]
    required: Mapping[str, list[str]]
    optional: Mapping[str, list[str]]
    accuracy_min: Mapping[str, Any]
    accuracy_max: Mapping[str, Any]
    limits: Mapping[str, Mapping[str, int]]
    target_latency_ms: Mapping[str, int]
    equal_issue: bool
    token_latencies: bool
    result_keys: Mapping[str, str]
    units: Mapping[str, str]
    compliance_files: Mapping[str, list[str]]
    eos_token_ids: list[int]

    def minimum(self, scenario: str) -> Mapping[str, float]:
        """Lower bounds by metric."""
        return _of_scenario(self.accuracy_min, scenario)

    def maximum(self, scenario: str) -> Mapping[str, float]:
        """Upper bounds by metric."""
        return _of_scenario(self.accuracy_max, scenario)

    def accuracy_samples(self, scenario: str) -> int:
        """How many samples an accuracy run has to answer."""
        count = self.accuracy_sample_count
        if isinstance(count, Mapping):
            count = count.get(scenario)
        return self.dataset_size if count is None else count


@dataclass(frozen=True)
class Round:
    """One round. `layout` is "v5.1" or "v6"; `result_keys` are the keys of other benchmarks."""

    name: str
    source: str
    loadgen_version: str
    seeds: Mapping[str, int]
    min_duration_ms: int
    layout: str
    model_aliases: Mapping[str, str]
    benchmarks: Mapping[str, Benchmark]
    result_keys: Mapping[str, str]
    system_fields: list[str]
    system_fields_nonempty: list[str]
    system_fields_network: list[str]
    system_fields_optional: list[str]
    measurement_fields: list[str]

    def official(self, model: str) -> str | None:
        """The official name of a model's directory; None if there is none."""
        if model in self.benchmarks:
            return model
        alias = self.model_aliases.get(model)
        return alias if alias in self.benchmarks else None


def names() -> list[str]:
    """The rounds there are data of, oldest first."""
    return sorted(path.stem for path in ROUNDS.glob("*.json"))


@cache
def load(name: str) -> Round:
    """Raises UserError for a round there is no data of."""
    if name not in names():
        raise UserError(f"there are no rules of round {name!r}; choose one of {', '.join(names())}")
    table = json.loads((ROUNDS / f"{name}.json").read_text(encoding="utf-8"))
    benchmarks = {model: Benchmark(**entry) for model, entry in table.pop("benchmarks").items()}
    return Round(benchmarks=benchmarks, **table)


@cache
def round_of_seeds() -> Mapping[tuple[str, int], str]:
    """Which round a seed belongs to, by the seed's name and value."""
    return {(key, seed): name for name in names() for key, seed in load(name).seeds.items()}


def _of_scenario(bounds: Mapping[str, Any], scenario: str) -> Mapping[str, float]:
    if scenario in bounds:
        found: Mapping[str, float] = bounds[scenario]
        return found
    return {metric: bound for metric, bound in bounds.items() if metric not in SCENARIOS}
