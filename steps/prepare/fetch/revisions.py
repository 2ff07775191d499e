"""Looks up the head of `main` of models whose revision nobody states."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.record import canonical_json
from steps.config.artifacts import HubModel
from steps.plan import revisions
from steps.prepare.fetch import cache, hub
from steps.prepare.fetch.client import Client


def resolve(models: Iterable[Mapping[str, Any]], root: Path) -> dict[str, str]:
    """Records and returns the commits, by hub and repository. Raises UserError, with nothing
    recorded, if one of them can't be found out."""
    commits = {
        revisions.name_of(model): head(HubModel.model_validate_json(canonical_json(model)))
        for model in models
    }
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    revisions.record(root, commits, now)
    return commits


def head(model: HubModel) -> str:
    """By the hub, or offline by what a cache of this machine had last."""
    settings = model.fetch
    if settings.offline:
        held = settings.hub_cache and cache.head(
            Path(settings.hub_cache), model.repository, revisions.BRANCH
        )
        if not held:
            raise UserError(
                f"no revision of {model.repository} is stated and fetch.offline is set; set "
                "benchmark.model.revision, or fetch.hub_cache to a cache that has it"
            )
        return held
    client = Client(settings.stall_limit_s, settings.attempts, settings.retry_wait_s)
    home = hub.address(settings.endpoint)
    allowed = hub.access(home, settings.token)
    return hub.head(home, model.repository, revisions.BRANCH, allowed, client)


def refuse_another(model: HubModel) -> None:
    """Raises UserError if `main` has moved since `model.revision` was recorded as its head.

    Only where it is fetched again: what is here already stays as it is.
    """
    if model.branch is None or model.fetch.offline or _cached(model):
        return
    now = head(model)
    if now != model.revision:
        raise UserError(
            f"{model.branch} of {model.repository} is {now} now, and {revisions.FILE} has "
            f"{model.revision}; delete its entry there to take the new one, or set "
            f"benchmark.model.revision={model.revision} to keep the old one"
        )


def _cached(model: HubModel) -> bool:
    held = model.fetch.hub_cache
    return held is not None and cache.holds(Path(held), model.repository, str(model.revision))
