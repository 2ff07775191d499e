"""Files that are on this machine already."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import MANIFEST, RECORD
from steps.base.untrusted import json_of
from steps.config.fetch import LocalSource
from steps.prepare.checkpoint.whole import refuse_pointer
from steps.prepare.fetch.download import check_names, file_digest


def take(
    source: LocalSource,
    directory: Path,
    advance: Callable[[int], None] = lambda count: None,
    total: Callable[[int], None] = lambda count: None,
) -> None:
    """Hard links into the empty `directory`, or copies where the file system can't link.

    Hidden files and directories (.git, .cache), manifest.json and record.json aren't taken.
    UserError for a source that isn't there, a file that doesn't match its digest, or a disk too
    small for copies.
    """
    home = Path(source.path).expanduser()
    if not home.is_dir():
        raise UserError(f"{home} isn't a directory; give the path of a model or dataset")
    names = [
        name
        for path in sorted(home.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(home).parts)
        for name in [str(path.relative_to(home))]
        if name not in (MANIFEST, RECORD)
    ]
    check_names(names, str(home))
    digests = {**_stated(home), **source.sha256}
    if missing := sorted(set(digests) - set(names)):
        raise UserError(f"{home / missing[0]} is missing; restore it or correct the path")
    if not names:
        raise UserError(f"{home} holds no files; give the path of a model or dataset")
    sizes = {name: (home / name).stat().st_size for name in names}
    total(sum(sizes.values()))
    for name in names:
        # Hubs' caches hold links to blobs; a link of a link would hang on the cache.
        path = (home / name).resolve()
        refuse_pointer(path)
        if name in digests and file_digest(path, "sha256") != digests[name]:
            raise UserError(f"{home / name} is not the file whose sha256 is given; restore it")
        place(path, directory / name, home)
        advance(sizes[name])


def place(path: Path, target: Path, home: Path) -> None:
    """A hard link to `path`, which lies in `home`, or a copy where the file system can't link.
    Raises UserError for a disk too small for a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:
        size = path.stat().st_size
        if size > (free := shutil.disk_usage(target.parent).free):
            raise UserError(
                f"{home} has to be copied and {target.name} needs {size / 1e9:.1f} GB, the disk "
                f"has {free / 1e9:.1f} GB free; make room"
            ) from None
        shutil.copyfile(path, target)


def _stated(home: Path) -> dict[str, str]:
    """The sha256 of each file in a manifest.json, as a step or the repository writes it."""
    path = home / MANIFEST
    if not path.exists():
        return {}
    try:
        files = json_of(path.read_text(encoding="utf-8"))["files"]
        return {str(name): str(entry["sha256"]) for name, entry in files.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}  # Of some other program.
