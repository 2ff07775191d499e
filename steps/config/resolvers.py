"""Resolvers of the configuration's interpolations: functions of their arguments and of the
configuration, and of other files of `conf/hardware/`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf

from steps.config.engine import SSH
from steps.config.groups import hardware_file
from steps.config.layers import SELECTORS, effective
from steps.config.origins import on_top

CREATED = {"allow_objects": True}
"""OmegaConf's flag for values of other types than its own, which have an origin."""


def _layers(*paths: str, _root_: DictConfig) -> DictConfig:
    """The layers at these paths, effective at this cell."""
    return OmegaConf.create(_effective(paths, _root_), flags=CREATED)


def _effective(paths: Sequence[str], _root_: DictConfig, **elsewhere: str) -> dict[str, Any]:
    """The same as it is, with another value than the cell's for a selector or not."""
    found = [OmegaConf.select(_root_, path) for path in paths]
    raw = [OmegaConf.to_container(node, resolve=True) for node in found if node is not None]
    return effective(cast(list[Mapping[str, Any]], raw), _point(_root_, **elsewhere))


def _point(_root_: DictConfig, **elsewhere: str) -> dict[str, str]:
    """What this cell has for each selector."""
    return {
        **{
            selector: str(_root_[selector[3:]].name)
            for selector in SELECTORS
            if selector != "by_model"
        },
        "by_model": str(_root_.benchmark.model.name),
        **elsewhere,
    }


def _engine(home: Path, *paths: str, _root_: DictConfig) -> DictConfig:
    """The layers of an engine, and what a placement has to know of the nodes that it is on.

    The nodes of a mixed cluster differ in DIFFERING alone (by_hardware), which `arguments_on` and
    so on have for those that aren't of the system's own hardware.
    """
    engine = _effective(paths, _root_)
    cluster, own = _root_.cluster, _root_.hardware
    if "placement" not in engine:
        return OmegaConf.create(engine, flags=CREATED)
    placement = engine["placement"]
    if cluster.hosts:
        placement |= {"cluster": SSH, "hosts": list(cluster.hosts), "checkout": cluster.checkout}
    if own.accelerator is not None:
        kinds = [_kind(home, group, placement, _root_) for group in cluster.groups]
        placement |= {"nodes": _nodes(cluster.groups), "kinds": kinds}
        # Of a cluster without the system's own hardware groups.check says so.
        known = own.name in {group.hardware for group in cluster.groups}
        for group in cluster.groups:
            there = _effective(paths, _root_, by_hardware=group.hardware)
            if known and _apart(there) != _apart(engine):
                raise ValueError(
                    f"engines on {own.name} and {group.hardware} differ in more than "
                    f"{', '.join(DIFFERING)}, and in one cluster only those may"
                )
            for name in DIFFERING:
                if there.get(name) != engine.get(name):
                    engine.setdefault(f"{name}_on", {})[group.hardware] = there.get(name, {})
    return OmegaConf.create(engine, flags=CREATED)


def _kind(
    home: Path, group: DictConfig, placement: Mapping[str, Any], _root_: DictConfig
) -> dict[str, Any]:
    """Nodes of a cluster as a placement knows them."""
    kind = _hardware(home, group.hardware, _root_)
    used = group.get("accelerators") or kind["accelerator"]["count_per_node"]
    usual = _root_.hardware.accelerator.count_per_node
    found = {
        "hardware": group.hardware,
        "nodes": group.nodes,
        "accelerator": {**kind["accelerator"], "count_per_node": used},
        "modes": _modes(kind.get("partitions"), group.hardware, _root_),
    }
    if used != usual:
        engines = placement["engines_per_node"]
        if engines * used < usual:
            raise ValueError(
                f"{engines} engines on a node of {_root_.hardware.name} have {usual} accelerators, "
                f"and the {used} of a node of {group.hardware} are too few for one; take those "
                "nodes out of cluster.groups, or let engines have fewer accelerators"
            )
        found["engines"] = engines * used // usual
    return found


def _hardware(home: Path, name: str, _root_: DictConfig) -> Mapping[str, Any]:
    """The cell's own, or another one as its file says it."""
    own = _root_.hardware
    return cast(Mapping[str, Any], own if name == own.name else hardware_file(home, name))


def _modes(partitions: Any, hardware: str, _root_: DictConfig) -> dict[str, Any] | None:
    """The partition modes of a hardware's accelerators, or those that the engine wants; None where
    they have none."""
    if not partitions:
        return None
    layers = [partitions, _root_.engine.get("partitions") or {}]
    plain = [OmegaConf.to_container(one) if OmegaConf.is_config(one) else one for one in layers]
    return effective(cast(list[Mapping[str, Any]], plain), _point(_root_, by_hardware=hardware))


DIFFERING = ("arguments", "environment", "power")
"""Settings of engines that may be others on another hardware of a mixed cluster."""

APART = (*DIFFERING, *(f"{name}_on" for name in DIFFERING), "placement", "dispatch", "unread")
"""What isn't compared; `dispatch` is recorded only, and `unread` is about `environment`."""


def _apart(engine: Mapping[str, Any]) -> dict[str, Any]:
    """Settings besides those that may differ and what the cluster says."""
    kept = {key: value for key, value in engine.items() if key not in APART}
    ours = ("nodes", "kinds", "cluster", "hosts", "checkout")
    placement = {key: value for key, value in engine["placement"].items() if key not in ours}
    return {**kept, "placement": placement}


def _source_layers(*paths: str, _root_: DictConfig) -> DictConfig:
    """The same before the weights are in the cell's precision."""
    return OmegaConf.create(_effective(paths, _root_, by_precision=""), flags=CREATED)


def _at(node: DictConfig, *keys: str) -> Any:
    """node[key][key]...: for keys with dots, which an interpolation can't name."""
    for key in keys:
        if node.get(key) is None:
            raise ValueError(f"there is no {key!r}, only {', '.join(map(str, node))}")
        node = node[key]
    return node


def _maybe(node: DictConfig | None, *keys: str | None) -> Any:
    """The same, or null."""
    for key in keys:
        node = None if node is None or key is None else node.get(key)
    return node


def _first(*values: Any) -> Any:
    """The first value that isn't null, which overrides those behind it."""
    given = [value for value in values if value is not None]
    return reduce(lambda below, value: on_top(value, below), reversed(given)) if given else None


def _model(source: DictConfig, _root_: DictConfig) -> DictConfig:
    """The source weights, or, with precision.prequantized, those that somebody published quantized;
    where nobody did, the source weights are quantized as ever."""
    precision, there = _root_.precision, _root_.benchmark.get("prequantized") or {}
    if not precision.get("prequantized") or precision.name not in there:
        return source
    fetched = {"name": source.name, "source": "huggingface", "fetch": source.fetch}
    ready = {**there[precision.name], "format": precision.format}
    return OmegaConf.create({**fetched, **ready}, flags=CREATED)


def _dataset_files(dataset: DictConfig) -> DictConfig | None:
    """What fetching a published dataset depends on; null if it is generated, or here already."""
    if "evaluation" not in dataset or dataset.path is not None:
        return None
    found = {key: dataset[key] for key in ("name", "recipe", "fetch")}
    for part in ("evaluation", "calibration"):
        found[part] = {key: dataset[part][key] for key in ("uri", "names")}
    return OmegaConf.create(found, flags=CREATED)


def _nodes(groups: ListConfig) -> int:
    return int(sum(group.nodes for group in groups))


def _started_by(groups: ListConfig, scheduler: str) -> str:
    """What starts a cluster's engines unless the configuration says: Slurm those of its job, a
    cluster of Ray that runs already all others. cluster.hosts takes its place (_engine)."""
    if _nodes(groups) == 1:
        return "none"
    return "slurm" if scheduler == "slurm" else "auto"


def _accelerators(home: Path, groups: ListConfig, *, _root_: DictConfig) -> int:
    """The accelerators that a cluster uses: nodes of one hardware need not have as many."""
    found = 0
    for group in groups:
        has = _hardware(home, group.hardware, _root_)["accelerator"]
        found += group.nodes * (group.get("accelerators") or (has["count_per_node"] if has else 0))
    return int(found)


RESOLVERS: Mapping[str, Callable[..., Any]] = {
    **{
        "layers": _layers,
        "source_layers": _source_layers,
        "at": _at,
        "maybe": _maybe,
        "first": _first,
        "model": _model,
        "dataset_files": _dataset_files,
    },
    **{"text": str, "nodes": _nodes, "started_by": _started_by},
}


OF_HARDWARE = ("accelerators", "engine")
"""Resolvers that read other files of `conf/hardware/`."""

FOREIGN = (
    *("oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values", "oc.env"),
    *("oc.select", "hydra", "now", "python_version"),
)
"""Resolvers of OmegaConf and Hydra. A plan is found again by `conf/`, the overrides and the site's
file, so nothing in it may come from the environment, the clock or the machine."""


ONCE = ("engine", "layers", "source_layers")
"""Resolvers of several layers, whose results many values of a cell refer to."""

Known = dict[tuple[str, ...], DictConfig]
"""What the resolvers of ONCE came to at a cell, by their names and paths."""


@contextmanager
def our_resolvers(home: Path) -> Iterator[Known]:
    """Within it, and within Hydra's own, no interpolation reaches anything else. Who goes on to
    another cell clears what it yields."""
    ours: dict[str, Callable[..., Any]] = {**RESOLVERS, "engine": partial(_engine, home)}
    ours["accelerators"] = partial(_accelerators, home)
    known: Known = {}
    for name, function in ours.items():
        once = _once(name, function, known) if name in ONCE else function
        OmegaConf.register_new_resolver(name, once, replace=True)
    for name in FOREIGN:
        OmegaConf.clear_resolver(name)
    try:
        yield known
    finally:
        OmegaConf.clear_resolvers()  # and brings back OmegaConf's


def _once(name: str, function: Callable[..., DictConfig], known: Known) -> Callable[..., Any]:
    def resolved(*paths: str, _root_: DictConfig) -> DictConfig:
        key = (name, *paths)
        if key not in known:
            known[key] = function(*paths, _root_=_root_)
        return known[key]

    return resolved
