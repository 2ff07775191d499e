"""A model or a dataset from a hub, from URLs, from MLCommons' storage or from this machine.

Files of a hub are fetched by its HTTP interface: huggingface_hub compares sizes, not digests, and
brings an engine's environment with it, while URLs and MLCommons' storage need all of this anyway.
"""

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console, Progress
from steps.base.errors import UserError
from steps.base.record import Workspace, partial_directory
from steps.config.fetch import FetchConfig, HubSource, LocalSource
from steps.config.weights import WeightsResult
from steps.prepare.fetch import cache, hub, local, loopback, sources
from steps.prepare.fetch.client import Client, shown
from steps.prepare.fetch.download import download


class Counter:
    """Progress whose total is known late, counted by several threads."""

    def __init__(self, console: Console, label: str) -> None:
        self._console = console
        self._label = label
        self._lock = threading.Lock()
        self._progress: Progress | None = None

    def total(self, size: int) -> None:
        self._progress = self._console.progress(self._label, size, "bytes")

    def add(self, size: int) -> None:
        with self._lock:
            if self._progress:
                self._progress.add(size)


def step(
    config: FetchConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Fetches what a file of configuration names."""
    workspace.result = fetch(config, workspace, console).dumped()


def fetch(
    config: FetchConfig, workspace: Workspace, console: Console, mirror: Path | None = None
) -> WeightsResult:
    """UserError if offline and the source isn't local: before a name is looked up.

    `mirror`: the manifest of what a mirror on this machine serves. The result says which hub was
    asked: HF_ENDPOINT may replace the one in the configuration.
    """
    counter = Counter(console, f"fetch {config.name}")
    made = WeightsResult(name=config.name, simulated=False)
    if isinstance(config.source, LocalSource):
        local.take(config.source, workspace.directory, counter.add, counter.total)
        return made
    if isinstance(config.source, HubSource) and config.hub_cache is not None:
        cached = Path(config.hub_cache)
        lacking = cache.take(config.source, cached, workspace.directory, counter.add, counter.total)
        if lacking is None:
            return made.but(fetched_from="a hub's cache")
        if config.offline:
            raise UserError(f"{lacking}, and offline=true; fill the cache where there is a network")
        console.say(f"{config.name}: {lacking}; fetching it")
    if config.offline:
        raise UserError(
            f"{config.name} comes from a network and offline=true; fetch it elsewhere and give its "
            "directory as a local source"
        )
    if isinstance(config.source, HubSource):
        made = made.but(fetched_from=shown(hub.address(config.source.endpoint)))
    partial = workspace.partial or partial_directory(workspace.directory)
    with loopback.session(mirror) as session:
        client = Client(config.stall_limit_s, config.attempts, config.retry_wait_s, session=session)
        items = sources.items(config.source, client)
        download(items, partial, client, config.connections, counter.add, counter.total)
    os.replace(partial, workspace.directory)
    return made
