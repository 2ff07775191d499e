"""A node's side of what it is sent: an image, or weights. See steps/run/placing/sending.py."""

import contextlib
import hashlib
import os
import platform
import shutil
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import ValidationError

from steps import ROOT
from steps.base.errors import UserError
from steps.base.record import MANIFEST, RECORD, Manifest, sha256_file
from steps.base.strict import NotNegative, Strict
from steps.config.runtime import ContainerSettings

LOAD, TAKE = "--load", "--take"
"""Arguments of an agent that is sent an image, and weights."""

ANSWER_LIMIT_S = 3600.0
"""How long a node may take to answer after the last byte."""

CHUNK = 1 << 22


class Parcel(Strict):
    """Weights; the bytes of `files` follow, one file after the other.

    `path`: of their manifest in the checkout. `sha256`: its digest. `manifest`, `record`: the texts
    of both. `files`: how many bytes each has.
    """

    path: str
    sha256: str
    manifest: str
    record: str
    files: dict[str, NotNegative]


class Taken(Strict):
    """The answer. `error`: why it can't be used there, None if it can."""

    error: str | None = None


def load(stream: IO[bytes]) -> None:
    """An image into the container engine whose settings the first line says. Raises UserError."""
    from steps.machine.runtime.host import connected

    settings = ContainerSettings.model_validate_json(stream.readline())
    with connected(settings, limit_s=ANSWER_LIMIT_S) as client:
        client.images.load(stream)


def take(stream: IO[bytes], root: Path = ROOT) -> None:
    """Weights into the checkout at `root`, which has them whole or not at all. Raises UserError."""
    try:
        parcel = Parcel.model_validate_json(stream.readline())
    except ValidationError as error:
        raise UserError("what came isn't a parcel of weights; update the checkout") from error
    home = _home(parcel, root)
    temporary = home.with_name(f".{home.name}.{platform.node()}-{os.getpid()}.tmp")
    try:
        _remove_left_over(home)
        temporary.mkdir(parents=True)
        _require_room(parcel, temporary)
        for name, size in parcel.files.items():
            _file(stream, temporary / name, size)
        # The manifest comes last: files older than it are those that it was made of.
        (temporary / RECORD).write_text(parcel.record, encoding="utf-8")
        (temporary / MANIFEST).write_text(parcel.manifest, encoding="utf-8")
        _require_whole(temporary, parcel)
        _put(temporary, home, parcel)
    except OSError as error:
        raise UserError(f"{home} can't be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _home(parcel: Parcel, root: Path) -> Path:
    names = [PurePosixPath(name) for name in (parcel.path, *parcel.files)]
    if any(name.is_absolute() or ".." in name.parts for name in names):
        raise UserError("a parcel's files belong below the checkout, and these don't")
    return (root / parcel.path).parent


def _remove_left_over(home: Path) -> None:
    """What killed agents of this machine left; several nodes may share the disk."""
    for path in home.parent.glob(f".{home.name}.{platform.node()}-*.tmp"):
        number = path.name.removesuffix(".tmp").rpartition("-")[2]
        if not Path(f"/proc/{number}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _require_room(parcel: Parcel, place: Path) -> None:
    needed, free = sum(parcel.files.values()), shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"it needs {needed / 1e9:.1f} GB and has {free / 1e9:.1f} GB free; free some, or share "
            "results/"
        )


def _file(stream: IO[bytes], path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    left = size
    with path.open("wb") as written:
        while left and (data := stream.read(min(left, CHUNK))):
            written.write(data)
            left -= len(data)
    if left:
        raise UserError("the connection ended in the middle; run again")


def _require_whole(temporary: Path, parcel: Parcel) -> None:
    if hashlib.sha256(parcel.manifest.encode()).hexdigest() != parcel.sha256:
        raise UserError("their manifest isn't the one that was announced; run again")
    for complaint in Manifest.read(temporary / MANIFEST).damage():
        raise UserError(f"{complaint}; run again")


def _put(temporary: Path, home: Path, parcel: Parcel) -> None:
    """Another node with the same disk may have been faster."""
    try:
        os.rename(temporary, home)
    except OSError:
        with contextlib.suppress(UserError):
            if sha256_file(home / MANIFEST) == parcel.sha256:
                return
        raise
