"""The rules of a round, read from `conf/round/` without Hydra: start-up counts for a validator.

Hydra composes the same files for the plan; a test keeps the two readings equal.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator

from steps import ROOT
from steps.base.errors import UserError, explain
from steps.base.strict import Positive, Strict
from steps.base.yaml_text import mapping_of
from steps.mlperf.compliance import Test

Kind = TypeVar("Kind", bound=Strict)

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


class Suite(Strict):
    """The scenarios that a type of system has to be measured in, and those that it may be."""

    required: Sequence[str]
    optional: Sequence[str] = ()


class Accuracy(Strict):
    """Inclusive bounds by metric, or by scenario and metric."""

    minimum: Mapping[str, Any]
    maximum: Mapping[str, Any]


class Benchmark(Strict):
    """One benchmark of a round. Counts are samples; limits and targets are p99.

    `scenarios`: by type of system. `given_limits` maps scenarios to bounds on tokens ("ttft_ms",
    "tpot_ms") or to one on the whole answer ("latency_ms"), which LoadGen logs as a setting;
    `given_targets` to what it logs besides. `extra_accuracy_files` maps a directory beside
    accuracy.txt to the stems of the files it must hold. `bytes_per_sample`: what the rules count as
    moved "in" to the accelerators and "out" of them. `mlperf_conf`: keys that LoadGen's own file
    sets differently from others.
    """

    performance_sample_count: Positive
    dataset_size: Positive
    compliance_tests: list[str]
    scenarios: Mapping[str, Suite]
    accuracy: Accuracy
    given_limits: Mapping[str, Mapping[Literal["ttft_ms", "tpot_ms", "latency_ms"], int]] = Field(
        alias="limits"
    )
    given_targets: Mapping[str, int] = Field(default={}, alias="target_latency_ms")
    offline_min_samples: Positive | None = None
    accuracy_sample_count: Positive | Mapping[str, Positive] | None = None
    loadgen_model: str | None = None
    equal_issue: bool = False
    token_latencies: bool = False
    result_keys: Mapping[str, str] = {}
    units: Mapping[str, str] = {}
    extra_accuracy_files: Mapping[str, list[str]] = {}
    eos_token_ids: Sequence[int] = ()
    mlperf_conf: Mapping[str, int | float] = {}
    bytes_per_sample: Mapping[str, int] | None = None

    @cached_property
    def required(self) -> Mapping[str, Sequence[str]]:
        """Scenarios by type of system."""
        return {kind: suite.required for kind, suite in self.scenarios.items()}

    @cached_property
    def optional(self) -> Mapping[str, Sequence[str]]:
        """Scenarios by type of system."""
        return {kind: suite.optional for kind, suite in self.scenarios.items()}

    @cached_property
    def limits(self) -> Mapping[str, Mapping[str, int]]:
        """Bounds on tokens, by scenario."""
        return {
            scenario: {str(of): bound for of, bound in limit.items()}
            for scenario, limit in self.given_limits.items()
            if "latency_ms" not in limit
        }

    @cached_property
    def target_latency_ms(self) -> Mapping[str, int]:
        """Bounds on the setting that LoadGen logs, by scenario."""
        whole = {
            scenario: limit["latency_ms"]
            for scenario, limit in self.given_limits.items()
            if "latency_ms" in limit
        }
        return {**whole, **self.given_targets}

    def minimum(self, scenario: str) -> Mapping[str, float]:
        """Lower bounds by metric."""
        return _of_scenario(self.accuracy.minimum, scenario)

    def maximum(self, scenario: str) -> Mapping[str, float]:
        """Upper bounds by metric."""
        return _of_scenario(self.accuracy.maximum, scenario)

    def accuracy_samples(self, scenario: str) -> int:
        """How many samples an accuracy run must answer."""
        count = self.accuracy_sample_count
        if isinstance(count, Mapping):
            count = count.get(scenario)
        return self.dataset_size if count is None else count

    def one_dataset(self, scenario: str) -> bool:
        """Whether accuracy and performance are measured on the same samples."""
        return self.accuracy_samples(scenario) == self.dataset_size


class Layout(Strict):
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


class Round(Strict):
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

    @field_validator("benchmarks", mode="before")
    @classmethod
    def without_those_that_left(cls, benchmarks: object) -> object:
        """A null removes what an earlier round has."""
        return _without_nulls(benchmarks) if isinstance(benchmarks, Mapping) else benchmarks

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
    groups = mapping_of(ROOT / "conf/config.yaml")["defaults"]
    return str(next(one["round"] for one in groups if isinstance(one, Mapping) and "round" in one))


@cache
def load(name: str) -> Round:
    """Raises UserError for a round without data."""
    if name not in names():
        raise UserError(f"there are no rules of round {name!r}; choose one of {', '.join(names())}")
    rules = {key: value for key, value in table(name).items() if key not in OF_REHEARSALS}
    return _typed(Round, rules, name)


OF_REHEARSALS = ("accuracy_factor_99", "accuracy_factor_99_9", "tokens_per_sample_tolerance")
"""Gates of the rehearsal, which has a reference of its own."""


@cache
def layouts() -> tuple[Layout, ...]:
    """Every layout once, that of the oldest round first."""
    return tuple(dict.fromkeys(map(_layout, names())))


@cache
def _layout(name: str) -> Layout:
    return _typed(Layout, table(name).get("layout"), name, "layout")


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
    return mapping_of(ROUNDS / f"{name}.yaml")


def _bases(name: str) -> list[str]:
    """The rounds that a file names under `defaults`, and theirs, the nearest first."""
    own = [base for base in reversed(_file(name).get("defaults", [])) if base != "_self_"]
    return [one for base in own for one in (base, *_bases(base))]


def _typed(kind: type[Kind], value: object, name: str, *above: str) -> Kind:
    """The value at the keys `above` of a round. Raises UserError naming the file and the key."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        # A misspelt key is missing too: the file is that of the wrong one.
        first = min(error.errors(), key=lambda one: one["type"] == "missing")
        place = tuple(map(str, (*above, *first["loc"])))
        said = ".".join((*above, explain(error)))
        raise UserError(f"{_file_with(name, place)}: {said}; fix it there") from error


def _file_with(name: str, place: Sequence[str]) -> Path:
    """The file of a round, or of those that it builds on, that sets this key; its own if none."""
    for one in (name, *_bases(name)):
        found: Any = _file(one)
        for key in place:
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is not None:
            return ROUNDS / f"{one}.yaml"
    return ROUNDS / f"{name}.yaml"


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Key by key, as Hydra merges; a list or a null replaces the earlier value."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = _merged(below, value)
        result[key] = value
    return result


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
