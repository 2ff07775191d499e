"""Which cells an experiment has, and which of them are asked for."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from steps.base.errors import UserError
from steps.base.yaml_text import mapping_of, value_of
from steps.config.axes import AXES
from steps.config.overrides import Typed
from steps.config.site import site_text


def points_of(
    conf: Path,
    base: DictConfig,
    typed: Typed,
    systems: Sequence[str] | None,
    site: Path | None,
) -> list[dict[str, str]]:
    """The cells that are asked for, in order; `systems`: instead of the typed ones.

    A system that no experiment has takes the cells of what it builds on. Raises UserError for a
    value that has no cell, and for a system of another experiment than the one taken by default.
    """
    _require_cells(base)
    axes = {**typed.axes, **({"system": list(systems)} if systems else {})}
    listed = list(_entries(base)) if base.get("cells") else None
    if listed is None:
        there = set(_several(base["matrix"]["system"]))
    else:
        there = {cell["system"] for cell in listed}
    named = "experiment" in typed.keys
    for system in axes.get("system", []):
        if system not in there and (listed is not None or not named):
            found = _stands_for(conf, base, system, there, site, named)
            if listed is not None and found:
                cells = [cell for cell in listed if cell["system"] == found]
                listed += [{**cell, "system": system} for cell in cells]
    return list(_product(base, axes)) if listed is None else _chosen(base, listed, axes, typed)


def _require_cells(base: DictConfig) -> None:
    """Raises UserError unless the experiment says which cells it has."""
    cells, matrix = base.get("cells"), base.get("matrix")
    listed = isinstance(cells, ListConfig) and all(isinstance(one, DictConfig) for one in cells)
    if (cells and not listed) or (not cells and not isinstance(matrix, DictConfig)):
        raise UserError(
            "the configuration has neither a matrix nor a list of cells; choose experiment=NAME"
        )


def _stands_for(
    conf: Path, base: DictConfig, system: str, there: set[str], site: Path | None, named: bool
) -> str | None:
    """The system whose cells it takes; None: none, and it needs none."""
    what = f"system {system}" if site is None else f"{system}, which --site {site} builds on"
    elsewhere = experiments_of(conf, system)
    bases = [] if elsewhere else bases_of(conf, system)
    for other in bases:
        if other in there:
            return other
    elsewhere = elsewhere or [one for other in bases for one in experiments_of(conf, other)]
    if elsewhere:
        taken = "" if named else ", which is taken where none is named,"
        raise UserError(
            f"experiment {base['experiment_name']}{taken} has no cell of {what}; add experiment="
            f"{' or experiment='.join(dict.fromkeys(elsewhere))}"
        )
    if base.get("cells"):
        raise UserError(
            f"experiment {base['experiment_name']} has no cell of {what}, nor of what that builds "
            f"on; it has cells of {', '.join(sorted(there))}"
        )
    return None


def require_matrix(base: DictConfig, typed: Typed) -> None:
    """Raises UserError for `matrix.AXIS=` that another choice makes pointless."""
    for leaf in typed.set_by_them:
        group, _, axis = leaf.path.partition(".")
        if group != "matrix":
            continue
        if base.get("cells"):
            raise UserError(
                f"{leaf.text} has no effect: experiment {base['experiment_name']} lists its cells "
                f"(conf/experiment/); choose among them with {axis}=NAME"
            )
        if axis in typed.axes:
            raise UserError(f"{leaf.text} has no effect: {axis}= is given too; leave one out")


def bases_of(conf: Path, system: str) -> list[str]:
    """Systems that a file of conf/system builds on, the nearest first, each once."""
    found = [system]
    for name in found:  # grows
        path = conf / "system" / f"{name}.yaml"
        defaults = mapping_of(path).get("defaults") if path.is_file() else None
        bases = defaults if isinstance(defaults, list) else []
        found += [one for one in bases if isinstance(one, str) and one not in (*found, "_self_")]
    return found[1:]


def experiments_of(conf: Path, system: str) -> list[str]:
    """Names of the experiments that have cells of a system."""
    found = []
    for path in sorted((conf / "experiment").glob("*.yaml")):
        raw = mapping_of(path)
        listed = raw.get("cells")
        cells = listed if listed and isinstance(listed, list) else [raw.get("matrix")]
        named = [cell.get("system", []) for cell in cells if isinstance(cell, dict)]
        if any(system in _several(one) for one in named):
            found.append(path.stem)
    return found


def _several(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list | ListConfig) else [str(value)]


def _product(base: DictConfig, axes: Mapping[str, list[str]]) -> Iterator[dict[str, str]]:
    given = {axis: base["matrix"].get(axis) for axis in AXES}
    matrix = {
        axis: axes.get(axis, [] if value is None else _several(value))
        for axis, value in given.items()
    }
    for axis, values in matrix.items():
        if not values:
            raise UserError(f"axis {axis} has no value; give at least one, as {axis}=NAME")
    for point in itertools.product(*(matrix[axis] for axis in AXES)):
        yield dict(zip(AXES, map(str, point), strict=True))


def _chosen(
    base: DictConfig,
    listed: list[dict[str, str]],
    wanted: Mapping[str, list[str]],
    typed: Typed,
) -> list[dict[str, str]]:
    """The cells of a list that the axes choose."""
    chosen = listed
    asked = " ".join(f"{name}={','.join(values)}" for name, values in wanted.items())
    for axis, values in wanted.items():
        there = dict.fromkeys(cell[axis] for cell in chosen)
        chosen = [cell for cell in chosen if cell[axis] in values]
        if not chosen:
            raise UserError(
                f"experiment {base['experiment_name']} has no cell with {asked}; the values of "
                f"{axis} left to choose from are {', '.join(there)}"
            )
    for axis, values in wanted.items():
        lost = [one for one in values if not any(cell[axis] == one for cell in chosen)]
        if lost and axis not in typed.patterns:
            raise UserError(
                f"experiment {base['experiment_name']} has no cell with {axis}={','.join(lost)} "
                f"among those of {asked}; leave {'it' if len(lost) == 1 else 'them'} out"
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
    raw = value_of(site_text(site), f"--site {site}")
    given = raw.get("defaults") if isinstance(raw, dict) else None
    defaults = given if isinstance(given, list) else []
    bases = [one for one in defaults if isinstance(one, str) and one != "_self_"]
    if not bases:
        raise UserError(
            f"--site {site} names no base: start it with `defaults: [amd-mi325x, _self_]`"
        )
    if any(one.split("@")[0].rpartition("/")[2] == site.stem for one in bases):
        raise UserError(f"--site {site} names itself as its base; name a system of conf/")
    if "_self_" in defaults and defaults.index("_self_") < defaults.index(bases[-1]):
        raise UserError(
            f"--site {site} has _self_ before {bases[-1]}, whose values would overrule the file's; "
            f"write `defaults: [{', '.join(bases)}, _self_]`"
        )
    return str(bases[0])
