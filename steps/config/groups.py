"""Typed groups of `conf/`: what hardware, cluster, system, precision and compression are.

Checked before anything is derived from them, so that an overlay that contradicts its base is named
by its own key and not by that of the step that stumbles over it.
"""

from collections.abc import Mapping
from functools import lru_cache
from math import isqrt
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ConfigDict, Field, ValidationError

from steps.base.arguments import nearest
from steps.base.errors import UserError, explain
from steps.base.record import canonical_json
from steps.base.strict import Division, Name, Positive, Rate, Scenario, Strict
from steps.base.yaml_text import mapping_of
from steps.config.accelerators import Accelerator
from steps.config.engine import Host
from steps.config.fetch import FetchSettings
from steps.config.generation import CHANNELS
from steps.config.layers import merged, selections
from steps.config.scale import scale_of

Group = TypeVar("Group", bound=Strict)

BY_FILE = ("hardware", "system", "precision", "engine")
"""Groups that layers select by, beside the scenario and the model."""

LAYERS = (
    *("hardware.engine", "hardware.fields", "hardware.runtime", "hardware.partitions"),
    *("engine.settings", "engine.fields", "engine.partitions"),
    *("benchmark.loadgen", "benchmark.quantizer_options", "compression.quantizer_options"),
    *("system.loadgen", "system.engine", "system.fields"),
)
"""Settings in layers, by their place in the composed configuration."""

LOADGEN = ("target_qps", "min_duration_ms", "min_query_count", "compliance_min_query_count")
"""What layers may say of LoadGen's settings (conf/steps.yaml)."""


class Hardware(Strict):
    """A kind of node.

    `name`: the file's. `accelerator`: None for a CPU. `environment`: the lock of `envs/` that
    engines run in; None: they run in containers. `precisions`: names of `conf/precision/` that it
    computes in, or emulates. `engine`: the first layer of engine settings. `fields`: of MLCommons'
    system description. `partitions`: modes that runs have the accelerators in, `compute` and
    `memory`, in layers; empty: they have none.

    A key that nothing reads is allowed here: notes on a machine belong beside its other facts.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: Name
    accelerator: Accelerator | None
    environment: Name | None
    precisions: tuple[Name, ...]
    engine: dict[str, Any]
    fields: dict[str, str]
    partitions: dict[str, Any] = Field(default_factory=dict)


class NodeGroup(Strict):
    """Nodes of one kind. `hardware`: a name of `conf/hardware/`. `nodes`: how many. `accelerators`:
    how many of each node's are used; null: all that the hardware has."""

    hardware: Name
    nodes: Positive
    accelerators: Positive | None = None


class Cluster(Strict):
    """Nodes of a system, by hardware.

    `name`: the file's. `groups`: the kinds of nodes. `hosts`: where a run starts engines over SSH,
    one host per node; empty: something else starts them. `checkout`: the
    path of the checkout on the hosts; null: the same as here.
    """

    name: Name
    groups: tuple[NodeGroup, ...]
    hosts: tuple[Host, ...]
    checkout: str | None

    @property
    def nodes(self) -> int:
        return sum(group.nodes for group in self.groups)


class System(Strict):
    """A system under test.

    `name`: the file's. `id`: its name in the submission tree. `division`: where its results are
    submitted. `submitter`: its folder in the tree. `target_qps`: LoadGen's target by scenario; it
    overrides every other rate. `rates`: what target_qps chooses from where it depends on the
    length. `idle`: lengths whose rates need an idle machine, which is said before runs start.
    `loadgen`: LoadGen's settings, a layer on the benchmark's. `engine`: engine settings, a layer on
    those of hardware and engine. `fields`: of MLCommons' system description, a layer on the
    hardware's; what can be probed may be left out.

    Layers: steps/config/layers.py.
    """

    name: Name
    id: Name
    division: Division
    submitter: Name
    target_qps: dict[Scenario, Rate]
    loadgen: dict[str, Any]
    engine: dict[str, Any]
    fields: dict[str, Any]
    rates: dict[Name, dict[Scenario, Rate]] = Field(default_factory=dict)
    idle: tuple[Name, ...] = ()


class NodeKind(Strict):
    """So many nodes of a hardware, and the accelerators of each; `architecture` None: a CPU."""

    hardware: Name
    nodes: Positive
    architecture: Name | None
    accelerators: int


class Requirement(Strict):
    """What a system needs of the machines it runs on; `model` None: a CPU is enough.

    `hardware` None: nodes of several kinds. `kinds`: each of them. `idle`: its rates are only valid
    if nothing else runs.
    """

    system: Name
    hardware: Name | None
    model: str | None
    architecture: Name | None
    memory_gb: float | None
    count_per_node: int
    nodes: Positive
    kinds: tuple[NodeKind, ...]
    idle: bool = False

    @property
    def accelerators(self) -> int:
        """In use on all nodes."""
        return sum(kind.nodes * kind.accelerators for kind in self.kinds)


class Site(Strict):
    """What is allowed on a site's machines. `sudo`: to set clocks for a run and to reset them."""

    sudo: bool


def site(composed: Mapping[str, Any]) -> Site:
    """Raises UserError for an unknown key or a wrong value."""
    return _validated(Site, composed, "site")


DERIVED_FIELDS = ("number_of_nodes", "division", "submitter")
"""Fields of a description that follow from the system's other keys; a second value is a mistake."""


def check(composed: Mapping[str, Any], conf: Path) -> Requirement:
    """Raises UserError naming the first key that is unknown, wrong or contradicts another."""
    hardware = _validated(Hardware, composed, "hardware")
    cluster = _validated(Cluster, composed, "cluster")
    system = _validated(System, composed, "system")
    # Also where nothing is fetched: overrides are packaged as they were typed, a token's value too.
    _validated(FetchSettings, composed, "fetch")
    _check_layers(composed, conf)
    _check_names(composed, hardware, system, conf)
    known = {path.stem for path in (conf / "hardware").glob("*.yaml")}
    for group in cluster.groups:
        if group.hardware not in known:
            raise UserError(
                f"cluster {cluster.name} has nodes of unknown hardware {group.hardware!r}; "
                f"there are {', '.join(sorted(known))}"
            )
    if hardware.name not in {group.hardware for group in cluster.groups}:
        raise UserError(
            f"system {system.name} runs on {hardware.name}, but cluster {cluster.name} has none "
            "of it; override /hardware or /cluster in its file"
        )
    scale = scale_of(composed)
    _check_division(system, composed["compression"], composed["benchmark"])
    if not scale.rehearsed:
        _check_pictures(system, composed)
    precision = str(composed["precision"]["name"])
    if precision not in hardware.precisions:
        raise UserError(
            f"hardware {hardware.name} computes in {', '.join(hardware.precisions)}, not in "
            f"{precision}; choose another precision or system"
        )
    for name in DERIVED_FIELDS:
        if name in system.fields:
            raise UserError(
                f"system {system.name} sets fields.{name}, which follows from its other keys; "
                "delete the line"
            )
    accelerator = hardware.accelerator
    if scale.rehearsed:
        return _of_a_cpu(system, hardware)
    return Requirement(
        system=system.name,
        hardware=hardware.name if len({g.hardware for g in cluster.groups}) == 1 else None,
        model=accelerator.model if accelerator else None,
        architecture=accelerator.architecture if accelerator else None,
        memory_gb=accelerator.memory_gb if accelerator else None,
        count_per_node=accelerator.count_per_node if accelerator else 0,
        nodes=cluster.nodes,
        kinds=tuple(_kind(group, hardware, conf) for group in cluster.groups),
        idle=composed["length"]["name"] in system.idle,
    )


def _of_a_cpu(system: System, hardware: Hardware) -> Requirement:
    """What a dress rehearsal of a system needs, however many nodes the system has."""
    kind = NodeKind(hardware=hardware.name, nodes=1, architecture=None, accelerators=0)
    return Requirement(
        system=system.name,
        hardware=None,
        model=None,
        architecture=None,
        memory_gb=None,
        count_per_node=0,
        nodes=1,
        kinds=(kind,),
    )


def _kind(group: NodeGroup, own: Hardware, conf: Path) -> NodeKind:
    accelerator = own.accelerator
    if group.hardware != own.name:
        raw = hardware_file(conf, group.hardware)["accelerator"]
        accelerator = Accelerator.model_validate_json(canonical_json(raw)) if raw else None
    has = accelerator.count_per_node if accelerator else 0
    if (group.accelerators or 0) > has:
        raise UserError(
            f"a cluster's nodes of {group.hardware} have {has} accelerators each, and can't use "
            f"{group.accelerators}; lower accelerators in its file of conf/cluster"
        )
    return NodeKind(
        hardware=group.hardware,
        nodes=group.nodes,
        architecture=accelerator.architecture if accelerator else None,
        accelerators=group.accelerators or has,
    )


def _check_division(
    system: System, compression: Mapping[str, Any], benchmark: Mapping[str, Any]
) -> None:
    """MLPerf Inference's closed division allows neither other weights nor further training."""
    if system.division == "closed" and benchmark.get("upcycle") is not None:
        raise UserError(
            f"system {system.name} is of the closed division, where benchmark {benchmark['name']} "
            "isn't allowed: its experts are made of other weights; set system.division=open"
        )
    for change, word in (("prune", "pruned"), ("finetune", "trained further")):
        if system.division == "closed" and compression[change] is not None:
            raise UserError(
                f"system {system.name} is of the closed division, where compression "
                f"{compression['name']} isn't allowed: the model is {word}; choose "
                "compression=none or system.division=open"
            )


def _check_pictures(system: System, composed: Mapping[str, Any]) -> None:
    """The closed division has pictures of the round's size, as the bytes of its answers say."""
    size = composed["benchmark"]["generation"].get("size")
    if system.division != "closed" or size is None:
        return
    found, wanted = CHANNELS * size**2, composed["effective"]["official"]["bytes_per_sample"]["out"]
    if found != wanted:
        raise UserError(
            f"system {system.name} is of the closed division, where a picture has {wanted:,} "
            f"bytes, and one of {size} pixels a side has {found:,}; set "
            f"benchmark.generation.size to {isqrt(wanted // CHANNELS)} or system.division=open"
        )


def _check_layers(composed: Mapping[str, Any], conf: Path) -> None:
    """A layer for a value that doesn't exist would never apply, and nobody would notice."""
    known = {
        "by_scenario": set(get_args(Scenario)),
        "by_model": {str(composed["benchmark"]["model"]["name"])},
        **{f"by_{group}": set(choices(conf, group)) for group in BY_FILE},
    }
    layers = {path: composed[path.split(".")[0]].get(path.split(".")[1]) for path in LAYERS}
    for path, layer in layers.items():
        for place, selector, value in selections(layer or {}, path):
            if selector == "by_model" and value not in known[selector]:
                _check_model(conf, place, value)
            elif value not in known[selector]:
                raise UserError(
                    f"{place} never applies: {value!r} isn't one of "
                    f"{', '.join(sorted(known[selector]))}{nearest(value, known[selector])}"
                )


def _check_model(conf: Path, place: str, value: str) -> None:
    """Models have names of their own, which several benchmarks share."""
    known = models(conf)
    if value in known.values():
        return
    hint = nearest(value, set(known.values()))
    if value in known:
        hint = f"; {value} is a benchmark, its model is {known[value]}"
    raise UserError(
        f"{place} never applies: {value!r} is no model{hint}; models are "
        f"{', '.join(sorted(set(known.values())))}"
    )


def _check_names(
    composed: Mapping[str, Any], hardware: Hardware, system: System, conf: Path
) -> None:
    """Keys and names that nothing would look up: they would act as if they weren't there."""
    for key in composed["effective"]["loadgen"]:
        if key not in LOADGEN:
            raise UserError(
                f"loadgen.{key} of benchmark {composed['benchmark']['name']} or system "
                f"{system.name} sets nothing{nearest(key, LOADGEN)}; it has {', '.join(LOADGEN)}"
            )
    lengths, precisions = choices(conf, "length"), choices(conf, "precision")
    for what, names, there in (
        (f"system {system.name}: rates", tuple(system.rates), lengths),
        (f"system {system.name}: idle", system.idle, lengths),
        (f"hardware {hardware.name}: precisions", hardware.precisions, precisions),
    ):
        for name in names:
            if name not in there:
                raise UserError(
                    f"{what} names {name}, and there is none{nearest(name, there)}; there are "
                    f"{', '.join(there)}"
                )
    required = composed["steps"]["describe"]["required"]
    for name in composed["effective"]["description"]:
        if name not in required:
            raise UserError(
                f"fields.{name} of system {system.name} is no field of a system description"
                f"{nearest(name, required)}; ./reproduce show fields lists those that are set"
            )


def _validated(kind: type[Group], composed: Mapping[str, Any], name: str) -> Group:
    try:
        return kind.model_validate_json(canonical_json(composed.get(name)))
    except ValidationError as error:
        named = " ".join(filter(None, (name, (composed.get(name) or {}).get("name"))))
        raise UserError(
            f"{named}: {explain(error)}; fix it in conf/, the --site file or the override"
        ) from error


def choices(conf: Path, group: str) -> list[str]:
    """The names of a group."""
    return sorted(path.stem for path in (conf / group).glob("*.yaml"))


def models(conf: Path) -> Mapping[str, str]:
    """The model of each benchmark, by the benchmark's name."""
    files = sorted((conf / "benchmark").glob("*.yaml"))
    return _models(conf, tuple((path.stem, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=8)
def _models(conf: Path, files: tuple[tuple[str, int], ...]) -> Mapping[str, str]:
    return {name: _model(conf, name) for name, _ in files}


def _model(conf: Path, benchmark: str) -> str:
    """As its file says it, or what it builds on; a file that can't be read has its own name."""
    try:
        raw = mapping_of(conf / "benchmark" / f"{benchmark}.yaml")
        own = raw.get("benchmark", raw)
        if "name" in own.get("model", {}):
            named = str(own["model"]["name"])
            return benchmark if "${" in named else named
        bases = [base for base in raw.get("defaults", []) if isinstance(base, str)]
    except (UserError, AttributeError, TypeError):
        return benchmark
    return next((_model(conf, base) for base in bases if base != "_self_"), benchmark)


def hardware_file(conf: Path, name: str, above: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """`conf/hardware/<name>.yaml` on what it builds on; interpolations stay as they are written.

    `above`: what builds on it. Raises UserError naming a file that can't be read.
    """
    path = conf / "hardware" / f"{name}.yaml"
    own = dict(_read(path, path.stat().st_mtime_ns if path.is_file() else 0))
    if name in above:
        raise UserError(f"{path} builds on itself ({' on '.join((*above, name))}); correct it")
    bases = [base for base in own.pop("defaults", []) if base != "_self_"]
    below: Mapping[str, Any] = {}
    for base in bases:
        below = merged(below, hardware_file(conf, base, (*above, name)))
    return merged(below, own)


@lru_cache(maxsize=128)
def _read(path: Path, written: int) -> Mapping[str, Any]:
    return mapping_of(path)
