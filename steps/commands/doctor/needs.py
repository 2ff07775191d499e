"""What a plan needs of the machine it runs on, taken from its cells and its jobs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from steps.base.errors import UserError, explain
from steps.base.record import canonical_json
from steps.base.strict import Name, Positive, Scenario, Strict
from steps.commands.doctor.settings import Clock, Settings
from steps.config.accelerators import Accelerator, Modes
from steps.config.fetch import Secret, Url
from steps.config.runtime import EngineAddress
from steps.config.scale import SCALE, scale_of
from steps.plan.capacity import Capacity
from steps.plan.estimate import computed_cost, facts_of
from steps.plan.plan import Job, Plan
from steps.plan.spec import Facts
from steps.plan.specs.shared import ENVIRONMENTS
from steps.schedule.launching import starts_nodes

HUB = "huggingface"
MIRROR = "mirror"
REHEARSED_ON = "cpu"
WORK = ("model", "upcycle", "quantize", "prune", "finetune")
"""Steps that read or write weights."""


class _Read(BaseModel):
    """A part of a composed cell: only the keys that matter here, the plan checks the rest."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Hardware(_Read):
    name: Name
    accelerator: Accelerator | None = None


class _Group(_Read):
    hardware: Name
    nodes: Positive


class _Cluster(_Read):
    groups: tuple[_Group, ...]


class _Named(_Read):
    name: Name


class _Benchmark(_Read):
    """`model.name`: the key of `conf/capacity.yaml`, where the benchmark has weights of a hub."""

    name: Name
    model: dict[str, Any]


class _Scenario(_Read):
    name: Scenario


class _Power(_Read):
    perf_determinism_mhz: int
    soc_pstate: int


class _Engine(_Read):
    power: _Power | None = None

    @property
    def clock(self) -> Clock | None:
        """None: no bound, performance level auto."""
        if self.power is None or not self.power.perf_determinism_mhz:
            return None
        return Clock(
            max_clock_mhz=self.power.perf_determinism_mhz, soc_pstate=self.power.soc_pstate
        )


class _Effective(_Read):
    partitions: dict[str, str]
    engine: _Engine


class _Cell(_Read):
    effective: _Effective
    system: _Named
    hardware: _Hardware
    benchmark: _Benchmark
    precision: _Named
    scenario: _Scenario
    cluster: _Cluster | None = None


class Fetched(_Read):
    """How a model is fetched, as far as access to it goes."""

    endpoint: Url
    token: Secret | None


class Repository(Strict):
    """A repository of the hub, with the same access as fetching."""

    name: str
    endpoint: Url
    token: Secret | None


class _Weights(_Read):
    """The part of a weights step's configuration with the model and its source."""

    name: str = ""
    model: str = ""
    source: str = ""
    repository: str = ""
    fetch: Fetched | None = None


class Needs(Strict):
    """The needs of all cells of a plan on one machine; they run on the same kind of hardware.

    `accelerators`: kinds that the machine may have, several in a mixed cluster; empty: CPUs
    suffice. `clocks`: by "benchmark scenario", None for performance level auto. `disk_gb`: of the
    jobs that aren't done. `repositories`: gated ones that are still to be downloaded. `containers`:
    whether any job runs in one, `engines`: those that such jobs name. `environments`: native ones
    that are still to be made. `starts_nodes`: runs start engines on other nodes, whose accelerators
    and clocks count, and not this machine's.
    """

    systems: tuple[Name, ...]
    nodes: Positive
    accelerators: tuple[Accelerator, ...]
    partitions: tuple[Modes, ...]
    clocks: dict[str, Clock | None]
    memory_gb: float
    disk_gb: float
    repositories: tuple[Repository, ...]
    containers: bool
    engines: tuple[EngineAddress, ...] = ()
    environments: tuple[Name, ...]
    starts_nodes: bool = False


def needs(
    plan: Plan,
    cells: list[dict[str, Any]],
    root: Path,
    settings: Settings,
    capacity: Capacity,
) -> Needs:
    """Raises UserError for cells that one machine can't serve, naming the systems."""
    read = [_cell(cell) for cell in cells]
    kinds = {cell.hardware.name: cell for cell in read}
    if len(kinds) > 1:
        raise UserError(
            f"the plan runs on {', '.join(sorted(kinds))}, this is one machine; "
            "check each alone, as system=NAME"
        )
    (hardware,) = (cell.hardware for cell in kinds.values())
    due = [job for job in plan.jobs if not (root / job.output).is_file()]
    if any(job.step == MIRROR for job in plan.jobs):  # its weights are small, whatever their names
        due = [job for job in due if job.step not in WORK]
    found = [cell.effective.partitions for cell in read]
    partitions = {Modes.model_validate(modes) for modes in found if modes}
    clocks = {
        f"{cell.benchmark.name} {cell.scenario.name}": cell.effective.engine.clock for cell in read
    }
    return Needs(
        systems=tuple(sorted({cell.system.name for cell in read})),
        nodes=max(_nodes(cell.cluster) for cell in read),
        accelerators=_kinds(hardware, read, capacity),
        partitions=tuple(sorted(partitions, key=str)) if hardware.accelerator else (),
        clocks=clocks if hardware.accelerator else {},
        memory_gb=_memory_gb(due, settings, capacity),
        disk_gb=_disk_gb(due, settings, capacity, facts_of(plan.jobs)),
        repositories=gated(due, settings),
        containers=any(job.container for job in plan.jobs),
        engines=_engines(plan.jobs),
        environments=tuple(job.key for job in due if job.step == "environment"),
        starts_nodes=any(map(starts_nodes, plan.jobs)),
    )


def _cell(composed: Mapping[str, Any]) -> _Cell:
    known = {key: composed[key] for key in _Cell.model_fields if key in composed}
    if SCALE in composed and scale_of(composed).rehearsed:  # here, whatever the system has
        known |= {"hardware": {"name": REHEARSED_ON}, "cluster": None}
    try:
        return _Cell.model_validate_json(canonical_json(known))
    except ValidationError as error:
        raise UserError(f"{explain(error)}; fix it in conf/") from error


def _nodes(cluster: _Cluster | None) -> int:
    return sum(group.nodes for group in cluster.groups) if cluster else 1


def _kinds(hardware: _Hardware, cells: list[_Cell], capacity: Capacity) -> tuple[Accelerator, ...]:
    """The hardware's accelerator, then those of other kinds of nodes in the cluster."""
    if hardware.accelerator is None:
        return ()
    others = {group.hardware for cell in cells if cell.cluster for group in cell.cluster.groups}
    known = sorted((others & capacity.hardware.keys()) - {hardware.name})
    return (hardware.accelerator, *(capacity.hardware[name].accelerator for name in known))


def _model_names(jobs: list[Job]) -> list[str]:
    """Names of the models that are still to be fetched or worked on."""
    weights = [(job, _Weights.model_validate_json(job.config)) for job in jobs if job.step in WORK]
    return sorted({one.name if job.step == "model" else one.model for job, one in weights})


def _memory_gb(due: list[Job], settings: Settings, capacity: Capacity) -> float:
    """One copy of the largest source model, whose files stay in the page cache; or the floor."""
    sizes = [
        float(capacity.memory_gb(capacity.models[name].billions, "FP16"))
        for name in _model_names(due)
        if name in capacity.models
    ]
    return max([settings.memory_floor_gb, *sizes])


def _disk_gb(
    due: list[Job], settings: Settings, capacity: Capacity, facts: Mapping[str, Facts]
) -> float:
    """Upper bound of the bytes that unfinished jobs will write: every copy of the weights counts 16
    bits each. Container images aren't included: the engine stores them.
    """
    total = 0.0
    for job in due:
        if job.step == "environment":
            total += ENVIRONMENTS.get(job.key, ENVIRONMENTS["cpu"])[1]
        elif job.step in WORK:
            total += sum(
                capacity.models[name].billions * capacity.bytes_per_parameter["FP16"]
                for name in _model_names([job])
                if name in capacity.models
            )
        elif job.step.endswith("_run"):
            total += max(settings.run_gb, computed_cost(job, facts[job.output]).gigabytes)
    return total


def gated(due: Iterable[Job], settings: Settings) -> tuple[Repository, ...]:
    """Repositories that ask for an accepted licence and are still to be downloaded."""
    sources = [_Weights.model_validate_json(job.config) for job in due if job.step == "model"]
    found = {
        one.repository: Repository(
            name=one.repository, endpoint=one.fetch.endpoint, token=one.fetch.token
        )
        for one in sources
        if one.fetch and one.source == HUB and one.repository.startswith(settings.gated)
    }
    return tuple(found[name] for name in sorted(found))


class _Address(_Read):
    engine: Literal["docker", "podman"]
    socket: str


def _engines(jobs: Iterable[Job]) -> tuple[EngineAddress, ...]:
    read = [_Address.model_validate_json(job.container) for job in jobs if job.container]
    known = {one.socket: EngineAddress(engine=one.engine, socket=one.socket) for one in read}
    return tuple(known[socket] for socket in sorted(known))
