"""From `conf/` and overrides to a plan; whoever only reads plans needn't load Hydra."""

from pathlib import Path

from steps.base.confidential.tokens import refuse_typed
from steps.config.compose import compose
from steps.config.scheduler import GROUP
from steps.plan.plan import Plan
from steps.plan.planner import Planner


def make(root: Path, overrides: list[str], site: Path | None = None) -> Plan:
    """Compose and check every cell. Raises UserError naming the cell and the key.

    `site`: a system file outside `conf/` that takes the place of the system it builds on.
    """
    refuse_typed(overrides)
    experiment, cells = compose(root / "conf", overrides, site)
    # A site's queues and accounts are neither part of a result nor anybody else's business.
    given = [text for text in overrides if text.lstrip("+~").split("=")[0].split(".")[0] != GROUP]
    if site is not None:
        given += ["--site", site.name]
    return Planner(root, experiment).plan(cells, given)
