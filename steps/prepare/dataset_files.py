"""The published files of a dataset as they are: fetched, each checked against its source's list."""

import os
from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Workspace, partial_directory
from steps.base.step import main
from steps.config.artifacts import DatasetFilesConfig
from steps.config.fetch import MlcommonsSource
from steps.config.prompts import DatasetFilesResult, FetchedFile
from steps.prepare.fetch import loopback, sources
from steps.prepare.fetch.client import Client
from steps.prepare.fetch.download import Item, check_names, download
from steps.prepare.fetch.fetch import Counter
from steps.prepare.names import found, known_names


def step(
    config: DatasetFilesConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Nothing is opened here. UserError for a file that the source doesn't list."""
    settings = config.fetch
    if settings.offline:
        raise UserError(
            f"{config.name} comes from a network and offline=true; fetch it elsewhere and give its "
            "directory as benchmark.dataset.path"
        )
    with loopback.session(inputs.get("mirror")) as session:
        client = Client(
            settings.stall_limit_s, settings.attempts, settings.retry_wait_s, session=session
        )
        workspace.result = _fetched(config, client, workspace, console).dumped()


def _fetched(
    config: DatasetFilesConfig, client: Client, workspace: Workspace, console: Console
) -> DatasetFilesResult:
    parts = {"evaluation": config.evaluation, "calibration": config.calibration}
    wanted: dict[str, list[str]] = {}
    for part in parts.values():
        wanted.setdefault(part.uri, []).extend(known_names(part.names))
    items = [item for uri, names in wanted.items() for item in _listed(uri, names, client)]
    check_names([item.name for item in items], config.name)
    there = {Path(item.name).name: item for item in items}
    chosen = {
        name: there[found(name, part.names, there, part.uri, config.recipe)]
        for name, part in parts.items()
    }
    partial = workspace.partial or partial_directory(workspace.directory)
    counter = Counter(console, f"fetch {config.name}")
    files = list(chosen.values())
    download(files, partial, client, config.fetch.connections, counter.add, counter.total)
    os.replace(partial, workspace.directory)
    got = {name: FetchedFile(file=item.name) for name, item in chosen.items()}
    return DatasetFilesResult(**got)


def _listed(uri: str, names: list[str], client: Client) -> list[Item]:
    source = MlcommonsSource(
        kind="mlcommons", uri=uri, checksums_sha256=None, headers={}, names=tuple(names)
    )
    return sources.items(source, client)


if __name__ == "__main__":
    main("dataset_files", DatasetFilesConfig, step)
