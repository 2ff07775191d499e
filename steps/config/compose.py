"""Composition: overrides in, one resolved configuration per cell out, each value with its origin.

Beside merging.py, overrides.py, points.py, resolvers.py, top_layer.py and tracing.py nothing
knows Hydra and OmegaConf.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import yaml
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType

from steps.base.arguments import nearest
from steps.base.errors import UserError, shown
from steps.base.yaml_text import mapping_of
from steps.config.axes import AXES
from steps.config.composed import ComposedCell, Composition, row
from steps.config.groups import System
from steps.config.merging import Composer, Place
from steps.config.origins import TYPED, Files, leaves, origin_of, plain
from steps.config.overrides import NARROWING, Typed, key_of, narrowing, read
from steps.config.points import base_of, points_of, require_matrix
from steps.config.remembered import remember
from steps.config.resolvers import OF_HARDWARE, RESOLVERS, Known, our_resolvers
from steps.config.scale import SCALE, require_scaled
from steps.config.site import PACKAGE, absent, site_text
from steps.config.top_layer import Placing, require_settings
from steps.config.tracing import trace, written
from steps.config.view import certainly_read
from steps.config.view import rows as short_rows

remember()

MATRIX_KEYS = ("experiment", "matrix", "cells", "experiment_name")
"""What the choice of cells depends on; every other override applies to each of them."""

SHARED = 24
"""So many compositions are kept in a process: a whole submission has ten."""

UNRESOLVED = ("round", "matrix", "cells", "set")
"""What only other groups read: the large tables of a round are resolved where they are used."""


def compose(
    conf: Path,
    overrides: Sequence[str],
    site: Path | None = None,
    stand_in: str | None = None,
    probe: str | None = None,
) -> Composition:
    """Compose every cell of the experiment.

    An experiment names a `matrix` (every combination of its axes) or a list of `cells`. An override
    of an axis (`precision=bf16,fp8`, `scenario=glob(*)`) replaces that axis of a matrix and chooses
    among cells, `row` chooses by the name of a result; any other override applies to all cells.
    `set.NAME=VALUE` is the top layer (top_layer.py). `site` is a system file outside `conf/` that
    takes the place of the system that it builds on; `stand_in` names a system that takes the place
    of whichever was chosen. `probe`: one more override of Hydra's, after all others. Raises
    UserError for anything that can't be read or that Hydra refuses.
    """
    try:
        return _composition(conf, overrides, site, stand_in, probe)
    except RecursionError as error:
        raise UserError(
            f"{_given(site)} is nested too deeply, or refers to itself; make it flat"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise _refused(_given(site), error) from error
    except OSError as error:
        name = str(error.filename or "")[:80]
        raise UserError(
            f"{_given(site)} can't be composed: {error.strerror or error} ({name})"
        ) from error


def _given(site: Path | None) -> str:
    return "an override" if site is None else f"an override or --site {site}"


def _composition(
    conf: Path,
    overrides: Sequence[str],
    site: Path | None,
    stand_in: str | None,
    probe: str | None,
) -> Composition:
    with (
        _with_site(conf, site) as home,
        initialize_config_dir(str(home), version_base="1.3"),
        our_resolvers(home) as known,
    ):
        composer = Composer(home)
        typed = read(home, overrides)
        systems = None
        if site is not None:
            stand_in = site.stem
            systems = [_replaced_by(site, typed.axes.get("system"))]
        chosen = [text for text in typed.fixed if key_of(text).split(".")[0] in MATRIX_KEYS]
        shared = _Shared(home if site is None else None)
        base = shared.base(composer, chosen)
        require_matrix(base, typed)
        points = points_of(home, base, typed, systems, site)
        if not points:
            raise UserError("the experiment has no cell; give each of its axes a value")
        require_scaled(home, typed.fixed, points)
        cells_of = _Cells(home, typed, composer, shared, known, site, probe)
        cells = [
            cells_of.cell(point if stand_in is None else {**point, "system": stand_in})
            for point in points
        ]
        cells_of.placing.require_all_held([cell.names for cell in cells])
    found = _of_rows(cells, typed.rows) if typed.rows else cells
    name = str(base["experiment_name"]) + str(cells[0].values[SCALE]["suffix"])
    return Composition(name, tuple(found), typed)


def _replaced_by(site: Path, systems: Sequence[str] | None) -> str:
    """The system whose cells become the site's."""
    base = base_of(site)
    other = [name for name in systems or () if name not in (base, site.stem)]
    if other:
        raise UserError(
            f"--site {site} takes the place of {base}, which it builds on, and not of "
            f"{', '.join(other)}; leave system= out"
        )
    return base


def _of_rows(cells: Sequence[ComposedCell], rows: Sequence[str]) -> list[ComposedCell]:
    """The cells of these rows of a results table: system id / benchmark in the tree / scenario."""
    named = {
        f"{cell.values['system']['id']}/{package['name']}/{cell.values['scenario']['name']}": cell
        for cell in cells
        for package in cell.values["benchmark"]["packages"]
    }
    for name in rows:
        if name not in named:
            raise UserError(
                f"no cell becomes row {name!r}{nearest(name, named)}; there are "
                f"{', '.join(sorted(named))}"
            )
    return [cell for cell in cells if any(named[name] is cell for name in rows)]


@contextmanager
def _with_site(conf: Path, site: Path | None) -> Iterator[Path]:
    """`conf/`, or a copy of it that holds the site's file as one more system."""
    if site is None:
        yield conf.resolve()
        return
    if not site.is_file():
        raise absent(site)
    if site.suffix != ".yaml":
        raise UserError(f"--site {site} has to end in .yaml; rename it, {site.stem}.yaml")
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


def _composed(
    composer: Composer, overrides: list[str], what: str
) -> tuple[DictConfig, tuple[Place, ...]]:
    try:
        return composer.compose(overrides)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise _unknown_key(composer, overrides, error) or _refused(what, error) from error


def _unknown_key(
    composer: Composer, overrides: Sequence[str], error: Exception
) -> UserError | None:
    """What to type instead of a key that isn't there; None: it is another fault."""
    there = re.search(r"An item is already at '([^']*)'", str(error))
    if there is not None:
        return UserError(f"there is a key {there[1]} already; write {there[1]}=... without +")
    found = re.search(r"Could not override '([^']*)'", str(error))
    if found is None:
        return None
    key = found[1]
    rest = [text for text in overrides if key_of(text) != key]
    try:
        node: Any = composer.compose(rest)[0]
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError):
        return None
    above, below = [], key.split(".")
    while isinstance(node, DictConfig) and len(below) > 1 and below[0] in node:
        above.append(below[0])
        node = node._get_node(below.pop(0))
    near = [str(name) for name in node] if isinstance(node, DictConfig) and node else []
    where = f": {'.'.join(above)} has no {below[0]}" if above else ""
    return UserError(
        f"there is no key {key}{where}{nearest(below[0], near)}; a key that isn't there yet is "
        f"added with ++{key}=..., and "
        "a rate or an engine's setting is set on any system with set.target_qps=... or "
        "set.engine.NAME=..."
    )


def _require_own(site: Path, files: Files) -> None:
    """Raises UserError for a site that would submit under the name of what it builds on."""
    own = f"system/{site.stem}"
    keys = {path.split(".")[1] for path in files.said[own] if path.startswith("system.")}
    if not keys <= set(System.model_fields):
        return  # one is misspelt, and that is said of it
    for key, what in (("submitter", "submit as"), ("id", "be in the tree as")):
        path = f"system.{key}"
        said = files.of(path)
        if said and said[-1][0] not in (own, TYPED) and "${system.name}" not in str(said[-1][1]):
            raise UserError(
                f"--site {site} sets no {path} and would {what} {said[-1][1]}; add {key} to its "
                "system"
            )


class _Shared:
    """Compositions that are needed again: cells that differ in nothing but their scenario share
    one, for a scenario is two keys of one file. `conf`: whatever this process composes shares them
    too, as long as no file of it changes; None: it doesn't.
    """

    _of_process: ClassVar[dict[tuple[object, ...], Any]] = {}

    def __init__(self, conf: Path | None) -> None:
        self._made: dict[tuple[object, ...], Any] = self._of_process if conf else {}
        self._conf: tuple[object, ...] = (conf, _stamp(conf)) if conf else ()

    def base(self, composer: Composer, chosen: list[str]) -> DictConfig:
        """What an experiment's cells are read from, and nobody changes."""
        found = self.get(*chosen)
        if found is None:
            found = _composed(composer, chosen, "the configuration")
            self.put(found, *chosen)
        return cast(DictConfig, found[0])

    def get(self, *key: object) -> Any:
        return self._made.get(self._conf + key)

    def put(self, made: Any, *key: object) -> None:
        while len(self._made) >= SHARED:
            del self._made[next(iter(self._made))]
        self._made[self._conf + key] = made


def _stamp(conf: Path) -> tuple[object, ...]:
    """Changes with every file of it."""
    found = []
    for folder, folders, names in os.walk(conf):
        folders.sort()
        for name in sorted(names):
            status = os.stat(os.path.join(folder, name))
            found.append((folder, name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


class _Cells:
    """Makes cells."""

    def __init__(
        self,
        conf: Path,
        typed: Typed,
        composer: Composer,
        shared: _Shared,
        known: Known,
        site: Path | None,
        probe: str | None,
    ) -> None:
        self._conf = conf
        self._fixed = [*typed.fixed, *([probe] if probe else [])]
        self._typed = {leaf.path: leaf.text for leaf in typed.set_by_them}
        self._composer = composer
        self._known = known
        self._site = site
        self._shared = shared
        self.placing = Placing(typed.settings, narrowing(conf) if typed.settings else [])

    def cell(self, point: Mapping[str, str]) -> ComposedCell:
        groups = [f"{group}={value}" for group, value in point.items()]
        key = (tuple(text for text in groups if not text.startswith("scenario=")), *self._fixed)
        shared, scenario = self._shared.get(key), self._scenario(point["scenario"])
        what = " ".join(groups)
        if shared is not None and scenario is not None:
            config, files = shared
            config["scenario"] = scenario
            trace(config["scenario"], "scenario")
            return self._made(config, _with_scenario(files, point["scenario"], scenario), what)
        config, order = _composed(self._composer, [*groups, *self._fixed], what)
        site = self._site.stem if self._site else None
        files = Files(order, self._composer.said, self._typed, site)
        same = config["scenario"] == scenario  # else something besides its file sets it
        self._require_names(config, point, files)
        config._set_flag("allow_objects", True)
        trace(config)
        if same:
            self._shared.put((config, files), key)
        return self._made(config, files, what)

    def _scenario(self, name: str) -> DictConfig | None:
        path = self._conf / "scenario" / f"{name}.yaml"
        return OmegaConf.create(mapping_of(path)) if path.is_file() else None

    def _made(self, config: DictConfig, files: Files, what: str) -> ComposedCell:
        named = [str(OmegaConf.select(config, f"{group}.name")) for group in NARROWING]
        names = frozenset([*named, str(OmegaConf.select(config, "benchmark.model.name"))])
        self._known.clear()
        with self.placing.placed(config, names) as held:
            values = _resolved(config, what)
            rows = tuple(
                row(key, plain(value), origin_of(value) or written(config, path, value), files)
                for key, path, value in short_rows(values)
            )
        require_settings(held, what, values)
        return ComposedCell(
            key="/".join(str(values[axis]["name"]) for axis in AXES),
            names=names,
            read=certainly_read(values),
            values=plain(values),
            rows=rows,
            files=files,
        )

    def _require_names(self, config: DictConfig, point: Mapping[str, str], files: Files) -> None:
        """A file's `name` is its own, and a site's system says who it is."""
        for axis in AXES:
            path, own = f"{axis}.name", str(point[axis])
            if path not in self._typed and str(OmegaConf.select(config, path)) != own:
                where = f"--site {self._site}" if self._is_site(own) else f"conf/{axis}/{own}.yaml"
                raise UserError(
                    f"{where} says name: {shown(str(OmegaConf.select(config, path)))}; a {axis}'s "
                    f"name is its file's: write name: {own}"
                )
        if self._site is not None and self._is_site(point["system"]):
            _require_own(self._site, files)

    def _is_site(self, system: str) -> bool:
        return self._site is not None and system == self._site.stem


def _with_scenario(files: Files, name: str, scenario: DictConfig) -> Files:
    """The files of a composition that this scenario shares with another."""
    path = f"scenario/{name}"
    order = [(path, at) if at == "scenario" else (own, at) for own, at in files.order]
    said = {**files.said, path: dict(leaves(OmegaConf.to_container(scenario), ""))}
    return Files(tuple(order), said, files.typed, files.site)


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
    said = re.split("To append to your config use|Either remove|Config search path:", _said(error))[
        0
    ]
    return UserError(f"{what} can't be composed: {' '.join(said.split())}")


def _said(error: BaseException) -> str:
    """Hydra's words, or those of what it wraps without a word."""
    while not str(error).strip() and (below := error.__cause__ or error.__context__) is not None:
        error = below
    return str(error) or type(error).__name__
