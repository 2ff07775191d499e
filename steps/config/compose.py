"""The only module that knows Hydra: overrides in, one resolved dictionary per cell out."""

import itertools
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType

from steps.base.errors import UserError
from steps.config.axes import AXES
from steps.config.engine import SSH
from steps.config.groups import hardware_file
from steps.config.layers import SELECTORS, effective
from steps.config.remembered import remember
from steps.config.site import PACKAGE, site_text

remember()

MATRIX_KEYS = ("experiment", "matrix", "cells", "experiment_name")
"""What the choice of cells depends on; every other override applies to each of them."""


ROW = "row"
"""`row=8xMI300X_2xEPYC_9575F/llama2-70b-99/Server`: the cell that becomes this published row."""

VALUES = 1000
"""An axis has no more; conf/ has some dozens of any."""

UNRESOLVED = ("round", "matrix", "cells")
"""What only other groups read: the large tables of a round are resolved where they are used."""


# ---- resolvers: pure functions of their arguments and of the configuration ---------------------


def _layers(*paths: str, _root_: DictConfig) -> DictConfig:
    """The layers at these paths, effective at this cell."""
    return OmegaConf.create(_effective(paths, _root_))


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

    The nodes of a mixed cluster differ in `arguments` alone (by_hardware), which `arguments_on` has
    for those that aren't of the system's own hardware.
    """
    engine = _effective(paths, _root_)
    cluster, own = _root_.cluster, _root_.hardware
    if "placement" not in engine:
        return OmegaConf.create(engine)
    placement = engine["placement"]
    if cluster.hosts:
        placement |= {"cluster": SSH, "hosts": list(cluster.hosts), "checkout": cluster.checkout}
    if own.accelerator is not None:
        placement |= {"nodes": _nodes(cluster.groups), "kinds": []}
        others: dict[str, Any] = {}
        for group in cluster.groups:
            kind = own if group.hardware == own.name else hardware_file(home, group.hardware)
            modes = _modes(kind.get("partitions"), group.hardware, _root_)
            used = group.get("accelerators") or kind["accelerator"]["count_per_node"]
            accelerator = {**kind["accelerator"], "count_per_node": used}
            one = {"hardware": group.hardware, "nodes": group.nodes}
            placement["kinds"].append({**one, "accelerator": accelerator, "modes": modes})
            there = _effective(paths, _root_, by_hardware=group.hardware)
            if _apart(there) != _apart(engine):
                raise ValueError(
                    f"engines on {own.name} and {group.hardware} differ in more than arguments, "
                    "and in one cluster only those may"
                )
            if there.get("arguments") != engine.get("arguments"):
                others[group.hardware] = there["arguments"]
        if others:
            engine["arguments_on"] = others
    return OmegaConf.create(engine)


def _modes(partitions: Any, hardware: str, _root_: DictConfig) -> dict[str, Any] | None:
    """The partition modes of a hardware's accelerators; None where it has none."""
    if not partitions:
        return None
    layer = OmegaConf.to_container(partitions) if OmegaConf.is_config(partitions) else partitions
    return effective([cast(Mapping[str, Any], layer)], _point(_root_, by_hardware=hardware))


def _apart(engine: Mapping[str, Any]) -> dict[str, Any]:
    """Settings besides arguments and what the cluster says."""
    kept = {key: value for key, value in engine.items() if key not in ("arguments", "placement")}
    ours = ("nodes", "kinds", "cluster", "hosts", "checkout")
    placement = {key: value for key, value in engine["placement"].items() if key not in ours}
    return {**kept, "placement": placement}


def _source_layers(*paths: str, _root_: DictConfig) -> DictConfig:
    """The same before the weights are in the cell's precision."""
    return OmegaConf.create(_effective(paths, _root_, by_precision=""))


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
    """The first value that isn't null."""
    return next((value for value in values if value is not None), None)


def _nodes(groups: ListConfig) -> int:
    return int(sum(group.nodes for group in groups))


def _accelerators(home: Path, groups: ListConfig, *, _root_: DictConfig) -> int:
    """The accelerators that a cluster uses: nodes of one hardware need not have as many."""
    found, own = 0, _root_.hardware
    for group in groups:
        kind = own if group.hardware == own.name else hardware_file(home, group.hardware)
        has = kind["accelerator"]
        found += group.nodes * (group.get("accelerators") or (has["count_per_node"] if has else 0))
    return int(found)


RESOLVERS: Mapping[str, Callable[..., Any]] = {
    **{
        "layers": _layers,
        "source_layers": _source_layers,
        "at": _at,
        "maybe": _maybe,
        "first": _first,
    },
    **{"text": str, "nodes": _nodes},
}


OF_HARDWARE = ("accelerators", "engine")
"""Resolvers that read other files of `conf/hardware/`."""

FOREIGN = (
    *("oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values", "oc.env"),
    *("oc.select", "hydra", "now", "python_version"),
)
"""Resolvers of OmegaConf and Hydra. A plan is found again by `conf/`, the overrides and the site's
file, so nothing in it may come from the environment, the clock or the machine."""


@contextmanager
def _our_resolvers(home: Path) -> Iterator[None]:
    """Within it, and within Hydra's own, no interpolation reaches anything else."""
    ours: dict[str, Callable[..., Any]] = {**RESOLVERS, "engine": partial(_engine, home)}
    ours["accelerators"] = partial(_accelerators, home)
    for name, function in ours.items():
        OmegaConf.register_new_resolver(name, function, replace=True)
    for name in FOREIGN:
        OmegaConf.clear_resolver(name)
    try:
        yield
    finally:
        OmegaConf.clear_resolvers()  # and brings back OmegaConf's


# ---- cells -------------------------------------------------------------------------------------


def compose(
    conf: Path, overrides: list[str], site: Path | None = None, stand_in: str | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """Compose every cell of the experiment.

    An experiment names a `matrix` (every combination of its axes) or a list of `cells`. An override
    of an axis (`precision=bf16,fp8`, `scenario=glob(*)`) replaces that axis of a matrix and chooses
    among cells, `row` chooses by the name of a result; any other override applies to all cells.
    `site` is a system file outside `conf/` that takes the place of the system that it builds on;
    `stand_in` names a system that takes the place of whichever was chosen. Returns the experiment's
    name and one dictionary per cell, in order. Raises UserError for anything that Hydra refuses.
    """
    try:
        return _cells(conf, overrides, site, stand_in)
    except RecursionError as error:
        raise UserError(
            f"{_given(site)} is nested too deeply, or refers to itself; make it flat"
        ) from error
    except OSError as error:
        name = str(error.filename or "")[:80]
        raise UserError(
            f"{_given(site)} can't be composed: {error.strerror or error} ({name})"
        ) from error


def _given(site: Path | None) -> str:
    return "an override" if site is None else f"an override or --site {site}"


def _cells(
    conf: Path, overrides: list[str], site: Path | None, stand_in: str | None
) -> tuple[str, list[dict[str, Any]]]:
    with (
        _with_site(conf, site) as home,
        initialize_config_dir(str(home), version_base="1.3"),
        _our_resolvers(home),
    ):
        fixed, axes = _split(home, overrides)
        if site is not None:
            stand_in = site.stem
            axes.setdefault("system", [base_of(site)])
        rows = axes.pop(ROW, [])
        chosen = [text for text in fixed if _key(text).split(".")[0] in MATRIX_KEYS]
        base = _composed(chosen, "the configuration")
        name = str(base["experiment_name"])
        points = _listed(base, axes) if base.get("cells") else _product(base, axes)
        cells, composer = [], _Composer(home, fixed)
        for point in points:
            if stand_in is not None:
                point = {**point, "system": stand_in}
            cells.append(composer.cell(point))
    return name, _of_rows(cells, rows) if rows else cells


def _of_rows(cells: list[dict[str, Any]], rows: list[str]) -> list[dict[str, Any]]:
    """The cells of these rows of a results table: system id / benchmark in the tree / scenario."""
    named = {
        f"{cell['system']['id']}/{package['name']}/{cell['scenario']['name']}": cell
        for cell in cells
        for package in cell["benchmark"]["packages"]
    }
    for row in rows:
        if row not in named:
            raise UserError(f"no cell becomes row {row!r}; there are {', '.join(sorted(named))}")
    return [cell for cell in cells if any(named[row] is cell for row in rows)]


@contextmanager
def _with_site(conf: Path, site: Path | None) -> Iterator[Path]:
    """`conf/`, or a copy of it that holds the site's file as one more system."""
    if site is None:
        yield conf.resolve()
        return
    if not site.is_file():
        raise UserError(
            f"--site {site} is not a file; docs/tutorial/partner-rerun.md shows how to write one"
        )
    text = site_text(site)
    if (conf / "system" / f"{site.stem}.yaml").exists():
        raise UserError(
            f"--site {site} has the name of conf/system/{site.stem}.yaml; give it its own name"
        )
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "conf"
        shutil.copytree(conf, home)
        # Hydra looks for it in the first lines only, and a comment before it ends its search.
        (home / "system" / site.name).write_text(f"{PACKAGE}\n{text}", encoding="utf-8")
        yield home.resolve()


def experiments_of(conf: Path, system: str) -> list[str]:
    """Names of the experiments that have cells of a system,."""
    found = []
    for path in sorted((conf / "experiment").glob("*.yaml")):
        raw = cast(DictConfig, OmegaConf.load(path))
        cells = [dict(cell) for cell in raw.get("cells", [])] or [dict(raw.get("matrix", {}))]
        if any(system in _several(cell.get("system", [])) for cell in cells):
            found.append(path.stem)
    return found


def _several(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, ListConfig) else [str(value)]


def _product(base: DictConfig, axes: Mapping[str, list[str]]) -> Iterator[dict[str, str]]:
    matrix = {axis: axes.get(axis, base["matrix"][axis]) for axis in AXES}
    for axis, values in matrix.items():
        if not values:
            raise UserError(f"axis {axis} has no value; give at least one, as {axis}=NAME")
    for point in itertools.product(*(matrix[axis] for axis in AXES)):
        yield dict(zip(AXES, map(str, point), strict=True))


def _listed(base: DictConfig, wanted: Mapping[str, list[str]]) -> list[dict[str, str]]:
    """The cells of a list that the axes choose."""
    listed = list(_entries(base))
    chosen = listed
    for axis, values in wanted.items():
        there = dict.fromkeys(cell[axis] for cell in chosen)
        chosen = [cell for cell in chosen if cell[axis] in values]
        if not chosen:
            asked = " ".join(f"{name}={','.join(values)}" for name, values in wanted.items())
            raise UserError(
                f"experiment {base['experiment_name']} has no cell with {asked}; the values of "
                f"{axis} left to choose from are {', '.join(there)}"
            )
    return chosen


def _entries(base: DictConfig) -> Iterator[dict[str, str]]:
    """Every entry of `cells` is a small matrix: an axis may have a list. `engine` may be named."""
    for entry in base["cells"]:
        names = [*AXES, *(key for key in entry if key not in AXES)]
        columns = []
        for name in names:
            value = entry.get(name, "none" if name == "compression" else None)
            if value is None:
                raise UserError(f"a cell of experiment {base['experiment_name']} has no {name}")
            columns.append(_several(value))
        for point in itertools.product(*columns):
            yield dict(zip(names, point, strict=True))


def base_of(site: Path) -> str:
    """The first system that a site file builds on."""
    try:
        raw = yaml.safe_load(site_text(site))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"--site {site} can't be read: {' '.join(str(error).split())}") from error
    defaults = raw.get("defaults") if isinstance(raw, dict) else None
    for entry in defaults if isinstance(defaults, list) else []:
        if isinstance(entry, str) and entry != "_self_":
            if entry.split("@")[0].rpartition("/")[2] == site.stem:
                raise UserError(f"--site {site} names itself as its base; name a system of conf/")
            return entry
    raise UserError(f"--site {site} names no base: start it with `defaults: [amd-mi325x, _self_]`")


# ---- overrides ---------------------------------------------------------------------------------


def _key(text: str) -> str:
    return str(_parsed(text).key_or_group)


def _parsed(text: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise UserError(f"override {text!r} is not KEY=VALUE as Hydra reads it") from error
    if not override.key_or_group:
        raise UserError(f"override {text!r} names no key; write KEY=VALUE")
    return override


def _split(conf: Path, overrides: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Overrides that apply to all cells, and the values of the axes (and rows) that were named."""
    fixed: list[str] = []
    axes: dict[str, list[str]] = {}
    for text in overrides:
        override = _parsed(text)
        if override.key_or_group in (*AXES, ROW):
            axes[override.key_or_group] = _values(conf, override)
        elif override.is_sweep_override():
            raise UserError(
                f"{override.key_or_group} can't be swept; only {', '.join(AXES)} take lists: "
                "run once per value instead; a value that has a comma is quoted twice, as "
                f"\"{override.key_or_group}='a, b'\""
            )
        else:
            fixed.append(text)
    return fixed, axes


def _values(conf: Path, override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.value())]
    value = override.value()
    if isinstance(value, RangeSweep):
        _check_range(override.key_or_group, value)
    if isinstance(value, Glob):
        folder = conf / override.key_or_group
        return cast(list[str], value.filter(sorted(path.stem for path in folder.glob("*.yaml"))))
    return list(override.sweep_string_iterator())


def _check_range(axis: str, value: RangeSweep) -> None:
    """Raises UserError for one that counts for ever, or for as good as ever."""
    start, stop, step = (float(part or 0) for part in (value.start, value.stop, value.step))
    if not step or not math.isfinite(start + stop + step) or (stop - start) / step > VALUES:
        raise UserError(f"{axis} has more than {VALUES} values in its range; name those you mean")


def _composed(overrides: list[str], what: str) -> DictConfig:
    try:
        return hydra_compose("config", overrides=overrides)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise _refused(what, error) from error


class _Composer:
    """Composes cells; those that differ in nothing but their scenario share one composition.

    Hydra takes a third of a second for a cell, and a scenario is two keys of one file.
    """

    def __init__(self, conf: Path, fixed: list[str]) -> None:
        self._conf = conf
        self._fixed = fixed
        self._shared: dict[tuple[str, ...], DictConfig] = {}

    def cell(self, point: Mapping[str, str]) -> dict[str, Any]:
        groups = [f"{group}={value}" for group, value in point.items()]
        key = tuple(text for text in groups if not text.startswith("scenario="))
        shared, scenario = self._shared.get(key), self._scenario(point["scenario"])
        if shared is not None and scenario is not None:
            shared["scenario"] = scenario
            return _resolved(shared, " ".join(groups))
        config = _composed([*groups, *self._fixed], " ".join(groups))
        if config["scenario"] == scenario:  # else something besides its file sets it
            self._shared[key] = config
        return _resolved(config, " ".join(groups))

    def _scenario(self, name: str) -> DictConfig | None:
        path = self._conf / "scenario" / f"{name}.yaml"
        return cast(DictConfig, OmegaConf.load(path)) if path.is_file() else None


def _resolved(config: DictConfig, what: str) -> dict[str, Any]:
    try:
        return {
            str(key): OmegaConf.to_container(config[key], resolve=True)
            for key in config
            if key not in UNRESOLVED and OmegaConf.is_config(config[key])
        }
    except (OmegaConfBaseException, ValueError) as error:
        raise _refused(what, error) from error


def _refused(what: str, error: Exception) -> UserError:
    if isinstance(error, UnsupportedInterpolationType):
        return UserError(
            f"{what} can't be composed: {str(error).splitlines()[0]}; of what ${{NAME:...}} stands "
            f"for there is only {', '.join(sorted([*RESOLVERS, *OF_HARDWARE]))}: write the value "
            "itself"
        )
    # Hydra goes on with the override to type instead, and so with its value, which may be a token,
    # or with every place that it searched.
    said = re.split("To append to your config use|Config search path:", str(error))[0]
    return UserError(f"{what} can't be composed: {' '.join(said.split())}")
