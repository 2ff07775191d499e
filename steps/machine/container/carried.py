"""Images that came with the checkout in a bundle: built elsewhere, loaded here."""

import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config import build_context
from steps.config.container import ImageConfig
from steps.config.environments import ImageResult
from steps.config.results import result_of
from steps.machine.runtime.host import image_id

FOLDER = "images"
"""Directory of images in a checkout that came as a bundle."""

LABEL = "org.reprise.inputs"
"""Label of an image: the digest of everything that it was built from."""

BASE = "org.reprise.base"
"""Label of an image: the id of its base."""

NAMED = "org.reprise.base.name"
"""Label of an image: the name of its base, with the digest that its first pull found."""


def save(client: docker.DockerClient, made: Manifest, folder: Path) -> Path:
    """The archive of a finished image, in `folder`; an archive that exists isn't saved again.

    Raises UserError if the engine no longer has the image.
    """
    identity = result_of(made, ImageResult).image
    path = folder / f"{identity.removeprefix('sha256:')}.tar"
    if path.is_file():
        return path
    if image_id(client, identity) is None:
        raise UserError(
            f"image {identity:.19} is no longer in its engine; delete {made.directory} and run "
            "./reproduce again, which builds it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            for chunk in client.images.get(identity).save(named=True):
                stream.write(chunk)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load(
    client: docker.DockerClient,
    config: ImageConfig,
    content: Mapping[str, bytes],
    folder: Path,
    console: Console,
) -> dict[str, Any] | None:
    """The attributes of the bundled image; None without one, or if it is of other inputs.

    The base needn't be here: a label of the image names it. Raises UserError for a damaged archive.
    """
    archive = folder / f"{config.name}.tar"
    if not archive.is_file():
        return None
    identity = image_id(client, _identity(archive))
    if identity is None:
        console.say(f"image {config.name}: loading {archive}")
        with archive.open("rb") as stream:
            (loaded,) = client.images.load(stream)
        identity = str(loaded.id)
    attributes = dict(client.images.get(identity).attrs)
    labels = attributes["Config"]["Labels"] or {}
    expected = build_context.digest(config, content, labels.get(BASE, ""))
    return attributes if labels.get(LABEL) == expected else None


def _identity(archive: Path) -> str:
    """An image's id is the digest of its configuration; the archive names that file after it."""
    try:
        with tarfile.open(archive, "r:") as tar:
            stream = tar.extractfile("manifest.json")
            described: Any = json.load(stream) if stream else None
            return f"sha256:{Path(described[0]['Config']).stem}"
    except (tarfile.TarError, OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{archive} isn't an image archive ({error}); unbundle it again") from error
