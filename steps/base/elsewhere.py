"""Artifacts of other machines whose results were brought here (./reproduce collect).

Two machines make weights of the same settings, or an image of the same recipe, with other bytes.
The results of each say what they were made from by digest; one machine's artifact lies where the
plan wants it, and of the others the manifests are kept, so that each result can be checked.
"""

import shutil
from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import MANIFEST, RECORD, Manifest, sha256_file

ARTIFACTS, KEPT = "artifacts", "elsewhere"


def _home(manifest: Path) -> Path | None:
    """Where those of an artifact are; None for what is no artifact."""
    parts = manifest.parent.parts
    if ARTIFACTS not in parts:
        return None
    at = len(parts) - 1 - parts[::-1].index(ARTIFACTS)
    return Path(*parts[: at + 1], KEPT, *parts[at + 1 :])


def keep(theirs: Path, ours: Path) -> None:
    """Keep another machine's manifest and record of the artifact whose manifest is `ours`."""
    home = _home(ours)
    if home is None:
        raise UserError(f"{ours} isn't an artifact's manifest")
    target = home / sha256_file(theirs)[:12]
    if (target / MANIFEST).is_file():
        return
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name in (RECORD, MANIFEST):
        shutil.copyfile(theirs.with_name(name), temporary / name)
    temporary.rename(target)


def digests(ours: Path) -> set[str]:
    """Digests of the kept manifests of an artifact; damaged ones don't count."""
    home = _home(ours)
    found = set()
    for path in home.glob(f"*/{MANIFEST}") if home is not None else ():
        try:
            Manifest.read(path)
        except UserError:
            continue
        found.add(sha256_file(path))
    return found
