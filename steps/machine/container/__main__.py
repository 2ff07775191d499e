"""An image as an artifact; the runs in it depend on it."""

import json
from collections.abc import Mapping
from pathlib import Path

from steps import ROOT
from steps.base.console import Console
from steps.base.locks import LOADGEN, overlaid_text
from steps.base.record import Workspace
from steps.base.step import main
from steps.config import options
from steps.config.container import ImageConfig
from steps.config.environments import ImageResult
from steps.machine.container import build, carried
from steps.machine.runtime.host import PYTHON, connected, require_init


def step(
    config: ImageConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes packages.json (name to version), image.json (the engine's description) and, where
    vLLM is, engine.json (what it takes).

    The result names the image by its id: a tag can move. Raises UserError for an engine that
    doesn't answer, a base that can't be pulled, a failed build or import.
    """
    with connected(config.host, config.build_limit_s) as client:
        require_init(client, config.host)
        lock = _lock(inputs, workspace.directory)
        attributes = build.image(client, config, lock, inputs["recipe"], ROOT, console)
        identity = str(attributes["Id"])
        build.probe(client, identity, config)
        packages = build.packages(client, identity)
        taken = build.engine(client, identity)
        version = client.version()["Version"]
    described = {
        key: attributes.get(key) for key in ("Id", "RepoTags", "RepoDigests", "RootFS", "Config")
    }
    for name, value in (("packages.json", packages), ("image.json", described)):
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        (workspace.directory / name).write_text(text, encoding="utf-8")
    if taken:
        (workspace.directory / options.FILE).write_text(taken, encoding="utf-8")
    labels = attributes["Config"]["Labels"]
    workspace.result = ImageResult(
        image=identity,
        labels=labels,
        base=labels.get(carried.NAMED, config.base),
        layers=tuple(attributes["RootFS"]["Layers"]),
        python=PYTHON,
    ).dumped()
    print(f"{config.host.engine} {version}: {identity}")


def _lock(inputs: Mapping[str, Path], folder: Path) -> Path:
    """The lock of the image's packages; one with the round's LoadGen is written to `folder`."""
    if LOADGEN not in inputs:
        return inputs["lock"]
    lock = folder / inputs["lock"].name
    lock.write_text(overlaid_text([inputs["lock"], inputs[LOADGEN]]), encoding="utf-8")
    return lock


if __name__ == "__main__":
    main("container", ImageConfig, step)
