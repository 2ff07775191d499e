"""From `conf/` and overrides to a plan; code that only reads plans needn't load Hydra."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.base.confidential.tokens import refuse_typed
from steps.base.errors import UserError
from steps.config import build_context
from steps.config.axes import AXES
from steps.config.compose import compose
from steps.config.composed import ComposedCell, Composition
from steps.config.container import ImageConfig
from steps.config.overrides import SET
from steps.config.scale import SCALE, scale_of
from steps.config.scheduler import GROUP
from steps.plan import revisions
from steps.plan.estimate import computed_cost, facts_of
from steps.plan.lost import refuse_beaten, refuse_lost
from steps.plan.plan import Plan
from steps.plan.planner import Planner
from steps.plan.registry import STEPS

OF_IT = (SCALE, SET.rstrip("."))
"""Beginnings of overrides that are of a rehearsal alone."""

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
    rehearsed = scale_of(found.cells[0].values).rehearsed
    expected = _expected(root, overrides, site) if rehearsed else {}
    plan = _planned(root, found, given, expected)

    def again(other: Sequence[str], probe: str | None) -> Plan:
        return _planned(root, compose(root / "conf", other, site, probe=probe), given, expected)

    refuse_lost(found, overrides, plan, again)
    return Made(plan, found.cells)


def _expected(root: Path, overrides: list[str], site: Path | None) -> Mapping[str, float]:
    """Machine-seconds of each cell's runs on what it is rehearsed for, where they are known.

    Raises UserError where that plan is refused: a mistake in what is replaced is found too. What is
    set or scaled is meant for the rehearsal.
    """
    kept = [
        text for text in overrides if text.lstrip("+~").split("=")[0].split(".")[0] not in OF_IT
    ]
    try:
        plan = make(root, kept, site)
        _require_buildable(plan, root)
    except UserError as error:
        raise UserError(f"what is rehearsed for is refused: {error}") from error
    facts = facts_of(plan.jobs)
    nodes = {needed.system: needed.nodes for needed in plan.requirements}
    found: dict[str, float] = {}
    for job in plan.jobs:
        if STEPS[job.step].stage == "runs":
            point = job.key.split("/")[: len(AXES)]
            seconds = computed_cost(job, facts[job.output]).seconds
            key = "/".join(point)
            found[key] = found.get(key, 0.0) + (seconds or math.nan) * nodes[point[0]]
    return {key: seconds for key, seconds in found.items() if math.isfinite(seconds)}


def _require_buildable(plan: Plan, root: Path) -> None:
    """Raises UserError for an image whose recipe doesn't take what it is given."""
    for job in plan.jobs:
        if job.step == "container" and not job.limitation:
            image = ImageConfig.model_validate_json(job.config)
            build_context.files(image, root / job.inputs["lock"], root / job.inputs["recipe"])


def _planned(
    root: Path, found: Composition, overrides: list[str], expected: Mapping[str, float]
) -> Plan:
    cells = revisions.pinned([dict(cell.values) for cell in found.cells], root)
    _require_free(found.experiment, [str(cell["system"]["name"]) for cell in cells])
    return Planner(root, found.experiment, expected).plan(cells, overrides)


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
