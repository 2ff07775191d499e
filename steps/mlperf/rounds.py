"""The rules of a round, read from `conf/round/` without Hydra: start-up counts for a validator.

Hydra composes the same files for the plan; a test keeps the two readings equal.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from steps import ROOT
from steps.base.errors import UserError
from steps.mlperf.compliance import Test

ROUNDS = ROOT / "conf/round"
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

MAY_BE_EMPTY = frozenset(
    (
        *("hw_notes", "sw_notes", "system_type_detail", "host_processor_frequency"),
        *("host_processor_caches", "host_processor_interconnect", "accelerator_frequency"),
        *("accelerator_interconnect_topology", "accelerator_on-chip_memories"),
    )
)
COUNTS = ("number_of_nodes", "host_processors_per_node", "accelerators_per_node")
"""Fields of a system description: required ones that may be empty (check_system_desc_id of the
checker, v5.1.1), and those that tools/submission/generate_final_report.py turns into integers.
"""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of a round. Counts are samples; `limits` and `target_latency_ms` are p99.

    `limits` maps scenarios to bounds on tokens (`ttft_ms`, `tpot_ms`), `target_latency_ms` to the
    bound on the setting that LoadGen logs. `required` and `optional` map a type of system to
    scenarios. `accuracy_min` and `accuracy_max` map metrics to inclusive bounds, or scenarios to
    such maps. `extra_accuracy_files` maps a directory beside accuracy.txt to the stems of the files
    it must hold. `bytes_per_sample`: what the rules count as moved "in" to the accelerators and
    "out" of them. `mlperf_conf`: keys that LoadGen's own file sets differently from others.
    """

    performance_sample_count: int
    dataset_size: int
    compliance_tests: list[str]
    required: Mapping[str, list[str]]
    optional: Mapping[str, list[str]]
    accuracy_min: Mapping[str, Any]
    accuracy_max: Mapping[str, Any]
    limits: Mapping[str, Mapping[str, int]]
    target_latency_ms: Mapping[str, int]
    offline_min_samples: int | None = None
    accuracy_sample_count: int | Mapping[str, int] | None = None
    loadgen_model: str | None = None
    equal_issue: bool = False
    token_latencies: bool = False
    result_keys: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    extra_accuracy_files: Mapping[str, list[str]] = field(default_factory=dict)
    eos_token_ids: list[int] = field(default_factory=list)
    mlperf_conf: Mapping[str, float] = field(default_factory=dict)
    bytes_per_sample: Mapping[str, int] | None = None

    def minimum(self, scenario: str) -> Mapping[str, float]:
        """Lower bounds by metric."""
        return _of_scenario(self.accuracy_min, scenario)

    def maximum(self, scenario: str) -> Mapping[str, float]:
        """Upper bounds by metric."""
        return _of_scenario(self.accuracy_max, scenario)

    def accuracy_samples(self, scenario: str) -> int:
        """How many samples an accuracy run must answer."""
        count = self.accuracy_sample_count
        if isinstance(count, Mapping):
            count = count.get(scenario)
        return self.dataset_size if count is None else count

    def one_dataset(self, scenario: str) -> bool:
        """Whether accuracy and performance are measured on the same samples."""
        return self.accuracy_samples(scenario) == self.dataset_size


@dataclass(frozen=True)
class Layout:
    """Where a submitter's files lie: names of folders beside its results/ and systems/.

    `measurements` and `compliance`: None where those files lie in the result's own folder.
    `description`: the name of the JSON about the weights, "{system}" being the system's; a star
    stands for any text. `code_of_models`: each model has a folder below `code`. `endpoint`: a file
    by which a result is one of an endpoint, without LoadGen's logs; None where no result is one.
    """

    code: str
    code_of_models: bool
    measurements: str | None
    compliance: str | None
    description: str
    endpoint: str | None

    @property
    def name(self) -> str:
        """The first round that has it; rounds share layouts."""
        return next(name for name in names() if _layout(name) == self)

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that are there for it alone, the one that tells it from others first."""
        apart = (self.measurements, self.code, self.compliance)
        return tuple(folder for folder in apart if folder is not None)

    def described(self, system: str) -> str:
        """The name of the description that a submission writes."""
        return self.description.replace("*", "").format(system=system)

    def describes(self, system: str, name: str) -> bool:
        """Whether a file of this name is the description."""
        first, *rest = (part.format(system=system) for part in self.description.split("*"))
        return name == first if not rest else name.startswith(first) and name.endswith(rest[-1])


@dataclass(frozen=True)
class Round:
    """One round. `result_keys` are the keys of benchmarks that name no other.

    `exact_files`: run_1 and accuracy/ hold no other files. `open_images`: open results too owe the
    `extra_accuracy_files`. `model_parts`: what of an open model's name says which benchmark it is.
    """

    name: str
    source: str
    loadgen_version: str
    seeds: Mapping[str, int]
    min_duration_ms: int
    layout: Layout
    exact_files: bool
    calibration_required: bool
    open_images: bool
    model_aliases: Mapping[str, str]
    model_parts: Mapping[str, str]
    benchmarks: Mapping[str, Benchmark]
    compliance: Mapping[str, Test]
    result_keys: Mapping[str, str]
    system_fields: list[str]
    system_fields_network: list[str]
    system_fields_optional: list[str]
    measurement_fields: list[str]

    def official(self, model: str) -> str | None:
        """The official name of a model's directory; None without one."""
        if model in self.benchmarks:
            return model
        alias = self.model_aliases.get(model)
        return alias if alias in self.benchmarks else None

    def inferred(self, model: str) -> str | None:
        """The benchmark that the official checker infers from the name of an open model."""
        found = next((part for part in self.model_parts if part in model), None)
        return None if found is None else self.official(self.model_parts[found])


def names() -> list[str]:
    """The rounds that have data, oldest first."""
    return sorted((path.stem for path in ROUNDS.glob("*.yaml")), key=_number)


def _number(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


@cache
def usual() -> str:
    """The round of whatever names none: that of `conf/config.yaml`."""
    groups = read_yaml(ROOT / "conf/config.yaml")["defaults"]
    return str(next(one["round"] for one in groups if isinstance(one, Mapping) and "round" in one))


@cache
def load(name: str) -> Round:
    """Raises UserError for a round without data."""
    if name not in names():
        raise UserError(f"there are no rules of round {name!r}; choose one of {', '.join(names())}")
    rules = table(name)
    for key in ("accuracy_factor_99", "accuracy_factor_99_9", "tokens_per_sample_tolerance"):
        del rules[key]  # gates of the rehearsal, which has a reference of its own
    benchmarks = {
        model: _benchmark(entry)
        for model, entry in rules.pop("benchmarks").items()
        if entry is not None
    }
    tests = {test: Test(**entry) for test, entry in rules.pop("compliance").items()}
    layout = Layout(**rules.pop("layout"))
    return Round(benchmarks=benchmarks, compliance=tests, layout=layout, **rules)


@cache
def layouts() -> tuple[Layout, ...]:
    """Every layout once, that of the oldest round first."""
    return tuple(dict.fromkeys(map(_layout, names())))


@cache
def _layout(name: str) -> Layout:
    return Layout(**table(name)["layout"])


@cache
def round_of_seeds() -> Mapping[tuple[str, int], str]:
    """The round that a seed belongs to, by the seed's name and value."""
    return {(key, seed): name for name in names() for key, seed in table(name)["seeds"].items()}


def table(name: str) -> dict[str, Any]:
    """A round's file, merged over those that it names under `defaults`."""
    own = _file(name)
    merged: dict[str, Any] = {}
    for base in own.get("defaults", []):
        if base != "_self_":
            merged = _merged(merged, table(base))
    return _merged(merged, {key: value for key, value in own.items() if key != "defaults"})


@cache
def _file(name: str) -> Mapping[str, Any]:
    return read_yaml(ROUNDS / f"{name}.yaml")


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads one of our own mappings, with libyaml where PyYAML has it: ten times as fast."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), loader)
    return found


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Key by key, as Hydra merges; a list or a null replaces the earlier value."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = _merged(below, value)
        result[key] = value
    return result


def _benchmark(entry: Mapping[str, Any]) -> Benchmark:
    own = _without_nulls(entry)
    suites, accuracy, limits = (own.pop(key) for key in ("scenarios", "accuracy", "limits"))
    whole = {scenario: limit["latency_ms"] for scenario, limit in limits.items() if len(limit) == 1}
    return Benchmark(
        required={suite: entry["required"] for suite, entry in suites.items()},
        optional={suite: entry["optional"] for suite, entry in suites.items() if len(entry) > 1},
        accuracy_min=accuracy["minimum"],
        accuracy_max=accuracy["maximum"],
        limits={scenario: limit for scenario, limit in limits.items() if scenario not in whole},
        target_latency_ms={**whole, **own.pop("target_latency_ms", {})},
        **own,
    )


def _without_nulls(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in entry.items()
        if value is not None
    }


def _of_scenario(bounds: Mapping[str, Any], scenario: str) -> Mapping[str, float]:
    if scenario in bounds:
        found: Mapping[str, float] = bounds[scenario]
        return found
    return {metric: bound for metric, bound in bounds.items() if metric not in SCENARIOS}
