"""From `conf/` and overrides to a plan; code that only reads plans needn't load Hydra."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.base.confidential.tokens import refuse_typed
from steps.base.errors import UserError
from steps.config.compose import compose
from steps.config.composed import ComposedCell, Composition
from steps.config.scheduler import GROUP
from steps.plan import revisions
from steps.plan.lost import refuse_beaten, refuse_lost
from steps.plan.plan import Plan
from steps.plan.planner import Planner
from steps.plan.registry import STEPS

OWN_FOLDERS = (
    *("artifacts", "caches", "clocks", "logs", "nodes"),
    *("plans", "published", "revisions", "systems"),
)
"""Folders of results/ that belong to no experiment."""

OWN_LOGS = tuple(f"{n}.log" for n, s in STEPS.items() if s.stage not in ("runs", "verdicts"))
"""Files of an experiment's logs/, where systems have folders."""


@dataclass(frozen=True)
class Made:
    """A plan and the cells that it was made of."""

    plan: Plan
    cells: tuple[ComposedCell, ...]


def make(root: Path, overrides: list[str], site: Path | None = None) -> Plan:
    """Compose and check every cell. Raises UserError naming the cell and the key.

    `site`: a system file outside `conf/` that takes the place of the system it builds on.
    """
    return made(root, overrides, site).plan


def made(root: Path, overrides: list[str], site: Path | None = None) -> Made:
    """The plan, with the cells."""
    refuse_typed(overrides)
    # A site's queues and accounts are neither part of a result nor anybody else's business.
    given = [text for text in overrides if text.lstrip("+~").split("=")[0].split(".")[0] != GROUP]
    if site is not None:
        given += ["--site", site.name]
    found = compose(root / "conf", overrides, site)
    refuse_beaten(found)
    plan = _planned(root, found, given)

    def again(other: Sequence[str], probe: str | None) -> Plan:
        return _planned(root, compose(root / "conf", other, site, probe=probe), given)

    refuse_lost(found, overrides, plan, again)
    return Made(plan, found.cells)


def _planned(root: Path, found: Composition, overrides: list[str]) -> Plan:
    cells = revisions.pinned([dict(cell.values) for cell in found.cells], root)
    _require_free(found.experiment, [str(cell["system"]["name"]) for cell in cells])
    return Planner(root, found.experiment).plan(cells, overrides)


def _require_free(experiment: str, systems: list[str]) -> None:
    """Raises UserError for names under which two things would have one place."""
    # A file system may tell no upper case.
    if experiment.lower() in OWN_FOLDERS:
        raise UserError(
            f"experiment_name={experiment} would have the results where Reprise keeps its own "
            f"{experiment.lower()}; choose another name"
        )
    for name in systems:
        if name.lower() in OWN_LOGS:
            raise UserError(
                f"a system named {name} would have its logs where the experiment's {name.lower()} "
                "is; choose another name"
            )
