"""A cell's configuration by short names: what `show` prints and `set.` writes into.

NAMES is the one list of them. A name is the same on every system, wherever its files put the value.
"""

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from steps.base.arguments import nearest
from steps.base.errors import UserError
from steps.config.artifacts import (
    CaptionDataset,
    EmbeddedModel,
    GeneratedDataset,
    HubModel,
    LocalModel,
    ReadyDataset,
    RemoteDatasetConfig,
    StoredModel,
)
from steps.config.compression import (
    BrevitasOptions,
    FinetuneConfig,
    PruneConfig,
    QuarkOptions,
    StreamingOptions,
)
from steps.config.engine import Engine
from steps.config.engine_planned import PlannedEngine
from steps.config.fetch import FetchSettings
from steps.config.generation import Generation, ImageGeneration
from steps.config.journal import JournalSettings
from steps.config.origins import Traced
from steps.config.runtime import Runtime
from steps.config.window import WindowBounds

_LOADGEN = "steps.performance_run.loadgen"

NAMES: Mapping[str, str] = {
    "target_qps": f"{_LOADGEN}.target_qps",
    "min_duration_ms": f"{_LOADGEN}.min_duration_ms",
    "min_query_count": f"{_LOADGEN}.min_query_count",
    "performance_sample_count_override": "length.performance_sample_count_override",
    "engine": "effective.engine",
    "generation": "benchmark.generation",
    "model": "benchmark.model",
    "dataset": "benchmark.dataset",
    "upcycle": "steps.upcycle",
    "quantize": "steps.quantize",
    "quantizer_options": "effective.quantizer_options",
    "prune": "compression.prune",
    "finetune": "compression.finetune",
    "quick_minimum": "compression.quick_minimum",
    "required_gate": "steps.accuracy_check.required",
    "gates": "benchmark.gates",
    "rules": "rules",
    "id": "system.id",
    "division": "system.division",
    "submitter": "system.submitter",
    "fields": "effective.description",
    "runtime": "effective.runtime",
    "container": "steps.container",
    "fetch": "fetch",
    "journal": "journal",
    "window": "window",
    "scheduler": "scheduler",
}
"""Short names, and where their values are in the composed configuration."""

WRITTEN: Mapping[str, str] = {"dataset.evaluation_count": "length.evaluation_count"}
"""Where a value is written that others besides its name read too."""

LAYERED = ("engine", "fields", "quantizer_options", "runtime")
"""Names whose values layers make: what is set is the last layer (conf/effective.yaml)."""

FIXED: Mapping[str, str] = {
    "rules": "the round says them; choose another one with round=NAME",
    "gates": "the round says them; choose another one with round=NAME",
    "upcycle": "the benchmark says it; override benchmark.upcycle.KEY",
    "quantize": "the precision says it; choose another one with precision=NAME",
    "container": "its recipe is in conf/engine/ or conf/hardware/",
    "scheduler": "it applies to all cells; choose another one with scheduler=NAME",
}
"""Names that are shown only, and why."""

_ENGINES = get_args(get_args(Engine)[0]) + get_args(get_args(PlannedEngine)[0])

TYPES: Mapping[str, tuple[Any, ...]] = {
    "generation": (Generation, ImageGeneration),
    "model": (EmbeddedModel, HubModel, StoredModel, LocalModel),
    "dataset": (GeneratedDataset, ReadyDataset, CaptionDataset, RemoteDatasetConfig),
    "quantizer_options": (QuarkOptions, BrevitasOptions, StreamingOptions),
    "prune": (PruneConfig,),
    "finetune": (FinetuneConfig,),
    "runtime": (Runtime,),
    "fetch": (FetchSettings,),
    "journal": (JournalSettings,),
    "window": (WindowBounds,),
}
"""What the values below a name are; a name without a type is one value, or texts by any name."""

ARGUMENTS = "arguments"
_SETTINGS = {name for kind in _ENGINES for name in kind.model_fields}


def place(key: str) -> str:
    """Where a name's value is below its short name's section: `engine.max_num_seqs` is the
    engine's argument of that name, unless the engine has a setting that is called so."""
    section, _, below = key.partition(".")
    if section == "engine" and below and below.partition(".")[0] not in _SETTINGS:
        return f"{section}.{ARGUMENTS}.{below}"
    return key


def short(path: str) -> str:
    """The short name of an engine's setting: without `arguments`, if that is unambiguous."""
    head = f"engine.{ARGUMENTS}."
    below = path[len(head) :]
    fitting = path.startswith(head) and below.partition(".")[0] not in _SETTINGS
    return f"engine.{below}" if fitting else path


def rows(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Every (short name, path, value) of a cell's configuration."""
    for name, path in NAMES.items():
        yield from _below(name, path, _at(values, path))


def _below(name: str, path: str, value: Any) -> Iterator[tuple[str, str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            if (name, key) != ("model", "fetch"):  # a name of its own
                yield from _below(f"{name}.{key}", f"{path}.{key}", inner)
    else:
        yield short(name), path, value


def _at(values: Mapping[str, Any], path: str) -> Any:
    found: Any = values
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


_ALWAYS = (
    *("dataset", "model", "describe", "performance_run", "accuracy_run"),
    *("performance_check", "accuracy_check", "cell"),
)
"""Steps that every cell has."""


def certainly_read(values: Mapping[str, Any]) -> frozenset[str]:
    """Paths of values that a cell's jobs are made of, and those that a name is. Of values with
    origins; what is put together of several isn't among them."""
    steps = values.get("steps") or {}
    parts = [steps.get(step) for step in _ALWAYS] + [values.get("scheduler")]
    quantize = steps.get("quantize")
    if isinstance(quantize, Mapping) and quantize.get("format") not in (None, "none"):
        parts.append(quantize)
    parts += [steps.get("upcycle"), steps.get("prune"), steps.get("finetune")]
    return frozenset(_origins(parts))


def _origins(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _origins(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _origins(inner)
    elif isinstance(value, Traced):
        yield value.origin.path


def section(key: str, text: str) -> str:
    """The name in NAMES that a setting belongs to. Raises UserError for one that can't be set."""
    name, _, below = key.partition(".")
    if name not in NAMES:
        return ""
    if name in FIXED:
        raise UserError(f"{text} sets nothing: {name} is shown, not set; {FIXED[name]}")
    if below and name not in (*LAYERED, *TYPES, "quick_minimum"):
        raise UserError(f"{text} sets nothing: {name} is one value; write {name}=VALUE")
    if not below and (name in LAYERED or name in TYPES):
        raise UserError(f"{text} sets nothing: {name} has keys of its own; write {name}.KEY=VALUE")
    return name


def require_known(key: str, text: str, where: str, kind: str | None) -> None:
    """Raises UserError with the nearest names for a setting that this cell's configuration lacks.

    `kind`: of its engine. What is open (environment, fields, arguments that the engine itself
    checks) isn't refused here.
    """
    name, _, below = place(key).partition(".")
    types: list[Any] = list(TYPES.get(name, ()))
    if name == "engine":
        types = _engine_types(kind)
    done = [name]
    for part in below.split(".") if below else []:
        known = _fields(types)
        if known is None:
            return
        if part not in known:
            near = known | (_engine_names(kind) if name == "engine" and len(done) < 3 else set())
            raise UserError(
                f"{text}: {where} has no {key}{nearest(part, near)}; ./reproduce show lists what "
                "it has"
            )
        types = [found for one in types if part in one.model_fields for found in _types(one, part)]
        done.append(part)


def _engine_types(kind: str | None) -> list[Any]:
    return [one for one in _ENGINES if kind in get_args(one.model_fields["kind"].annotation)]


def _engine_names(kind: str | None) -> set[str]:
    """Names of an engine's settings and arguments."""
    types = _engine_types(kind)
    inner = [
        found for one in types if ARGUMENTS in one.model_fields for found in _types(one, ARGUMENTS)
    ]
    return (_fields(types) or set()) | (_fields(inner) or set())


def _fields(types: list[Any]) -> set[str] | None:
    """Names that are known below; None: any."""
    if not types or any(one.model_config.get("extra") != "forbid" for one in types):
        return None
    return {name for one in types for name in one.model_fields}


def _types(model: type[BaseModel], name: str) -> list[Any]:
    return list(_models(model.model_fields[name].annotation))


def _models(annotation: Any) -> Iterator[Any]:
    """Typed parts that a value may be; none of what a mapping or a list has."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated):
        for inner in get_args(annotation):
            if inner is not NoneType:
                yield from _models(inner)
