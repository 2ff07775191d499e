"""A cache that Hugging Face's tools keep on this machine: `models--OWNER--NAME/` with snapshots of
commits, whose files are links to blobs named by their digests.
"""

import re
from collections.abc import Callable
from pathlib import Path

from steps.base.errors import UserError
from steps.config.fetch import HubSource
from steps.prepare.checkpoint.whole import check_whole
from steps.prepare.fetch.download import Algorithm, check_names, file_digest
from steps.prepare.fetch.local import place

DIGESTS: dict[int, Algorithm] = {64: "sha256", 40: "git"}
"""What a blob is named by, by the length of the name: the hub's digest of large and small files."""


def head(cache: Path, repository: str, branch: str) -> str | None:
    """The commit that a branch had when it was last asked for; None if the cache has none."""
    try:
        text = (_home(cache, repository) / "refs" / branch).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return text if re.fullmatch("[0-9a-f]{40}", text) else None


def holds(cache: Path, repository: str, revision: str) -> bool:
    """Whether there is anything of a revision."""
    return (_home(cache, repository) / "snapshots" / revision).is_dir()


def take(
    source: HubSource,
    cache: Path,
    directory: Path,
    advance: Callable[[int], None] = lambda count: None,
    total: Callable[[int], None] = lambda count: None,
) -> str | None:
    """Hard links, or copies, of a revision's files in the empty `directory`, each checked against
    its digest. Returns why that can't be, with nothing left there, or None if all are there.

    UserError for a file that isn't what its digest says: the cache is damaged.
    """
    home = _home(cache, source.repository) / "snapshots" / source.revision
    files = {
        str(path.relative_to(home)): path.resolve()
        for path in sorted(home.rglob("*"))
        if path.is_file() and source.wants(str(path.relative_to(home)))
    }
    if not files:
        return f"{home} isn't there"
    try:
        check_whole(home)
    except UserError as error:
        return str(error)
    if unnamed := [name for name, path in files.items() if len(path.name) not in DIGESTS]:
        return f"{home / unnamed[0]} is no link to a blob, so its digest isn't known"
    check_names(list(files), str(home))
    total(sum(path.stat().st_size for path in files.values()))
    for name, path in files.items():
        if file_digest(path, DIGESTS[len(path.name)]) != path.name:
            raise UserError(
                f"{home / name} isn't what its blob is named by: the cache is damaged; delete "
                f"{path} and fetch the model again"
            )
        place(path, directory / name, home)
        advance(path.stat().st_size)
    return None


def _home(cache: Path, repository: str) -> Path:
    return cache.expanduser() / f"models--{repository.replace('/', '--')}"
