"""The context that an engine gets to build an image: an archive of a few files, nothing else."""

import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

from steps.base.errors import UserError
from steps.base.locks import entries, normal
from steps.base.record import canonical_json
from steps.config.container import ImageConfig

_TAKEN = re.compile(r"^ARG (\w+)", re.MULTILINE)


def files(config: ImageConfig, lock: Path, recipe: Path) -> dict[str, bytes]:
    """Name to content: the Dockerfile, and the lock in two parts, one for each layer.

    Raises UserError for a file that can't be read, a package of `first` that the lock doesn't pin,
    and an argument that the Dockerfile doesn't take.
    """
    try:
        pins = entries(lock)
        dockerfile = recipe.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"image {config.name}: {error}; restore it with git checkout") from error
    wanted = {normal(package) for package in config.first}
    if missing := wanted.difference(pin.name for pin in pins):
        raise UserError(f"image {config.name}: {lock} pins no {', '.join(sorted(missing))}")
    taken = set(_TAKEN.findall(dockerfile.decode(errors="replace")))
    if unknown := arguments(config).keys() - taken:
        raise UserError(f"image {config.name}: {recipe} takes no {', '.join(sorted(unknown))}")
    below = [pin.text for pin in pins if pin.name in wanted]
    above = [pin.text for pin in pins if pin.name not in wanted]
    return {
        "Dockerfile": dockerfile,
        "first.lock": "".join(below).encode(),
        "lock": "".join(above).encode(),
    }


def arguments(config: ImageConfig) -> dict[str, str]:
    """The Dockerfile's arguments; empty ones are left out."""
    given = {"BASE_IMAGE": config.base, "PYTHON": config.python, **config.arguments}
    return {name: value for name, value in given.items() if value}


def digest(config: ImageConfig, content: Mapping[str, bytes], base_id: str) -> str:
    """The digest of everything that the image depends on, without files' times and owners.

    The base counts by its id, not by its local name.
    """
    parts = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    given = {**arguments(config), "BASE_IMAGE": base_id}
    return hashlib.sha256(canonical_json([parts, given]).encode()).hexdigest()


def archive(content: Mapping[str, bytes]) -> bytes:
    """A tar that depends only on names and contents, so that the engine's own cache hits too."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in sorted(content.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
