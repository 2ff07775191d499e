"""The frozen plan of a command's overrides, and what it takes to run one.

Heavy modules are imported where they are used: a repeated run whose plan is known costs little more
than snakemake itself.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from steps import ROOT
from steps.base.errors import UserError
from steps.base.record import canonical_json, digest_files, sha256_file, write_atomically
from steps.plan import revisions

RUNS_NOTHING = (
    *("-n", "--dry-run", "--dryrun", "--summary", "--dag", "--rulegraph", "--lint", "--report"),
)
"""What snakemake is asked without running anything."""

ORIGINS = Path("results/plans/origins")
"""Where the values of each plan come from, by the name of its index."""


def frozen_plan(root: Path, overrides: list[str], site: Path | None = None) -> Path:
    """The plan of these overrides; composed only if `conf/`, code or locks changed since.

    Composition is a pure function of what the key covers: `conf/` has no resolver that reads the
    environment, the clock or the machine; revisions that were looked up are in the key.
    """
    index = _index(root, overrides, site)
    return _known(root, index) or _planned(root, overrides, site, index)


def origins(root: Path, overrides: list[str], site: Path | None = None) -> str:
    """Where every value of the plan's cells comes from, as the JSON that steps/plan/origins.py
    writes. Stored with the plan."""
    index = _index(root, overrides, site)
    stored = root / ORIGINS / f"{index.name}.json"
    if _known(root, index) is None or not _is_whole(stored):
        _planned(root, overrides, site, index)
    return stored.read_text(encoding="utf-8")


def _is_whole(stored: Path) -> bool:
    """Not what a loss of power leaves: files that are empty, cut off or zeros."""
    try:
        return stored.read_bytes().endswith(b"]}\n")
    except OSError:
        return False


def _index(root: Path, overrides: list[str], site: Path | None) -> Path:
    """The file that names the plan of what is asked for, once it is made."""
    refuse_broken_link(root / "results")
    for text in [*overrides, *([] if site is None else [str(site)])]:
        if not _is_utf8(text):
            raise UserError(f"{text!r} isn't UTF-8, and a plan holds nothing else; fix it")
    if site is not None and not site.is_file():
        from steps.config.site import absent

        raise absent(site)
    read = ("conf/**/*.yaml", "conf/**/*.json", "envs/*.lock", "steps/**/*.py")
    files = [path for pattern in read for path in root.glob(pattern)]
    key = digest_files(files, root) + canonical_json(overrides) + revisions.text(root)
    if site is not None:
        key += site.name + site.read_text(encoding="utf-8", errors="replace")
    return root / "results/plans/index" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def _known(root: Path, index: Path) -> Path | None:
    """The plan, if it was made and is whole."""
    if not index.is_file():
        return None
    name = index.read_text(encoding="utf-8", errors="replace").strip()
    path = root / "results/plans" / f"{name}.json"
    # A loss of power leaves files that are empty or zeros.
    return path if path.is_file() and sha256_file(path)[:12] == name else None


def _planned(root: Path, overrides: list[str], site: Path | None, index: Path) -> Path:
    from steps.plan.make import made
    from steps.plan.origins import written
    from steps.plan.plan import freeze

    found = made(root, overrides, site)
    path = freeze(found.plan, root)
    write_atomically(root / ORIGINS / f"{index.name}.json", written(found.cells))
    write_atomically(index, path.stem + "\n")
    return path


def _is_utf8(text: str) -> bool:
    """Bytes of a command line that aren't, Python keeps as surrogates."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def scheduler(plan: Path) -> str:
    """The scheduler of a frozen plan, as in `conf/scheduler/`."""
    return str(json.loads(plan.read_text(encoding="utf-8"))["scheduler"]["name"])


def snakemake(plan: Path) -> list[str]:
    """The command that runs a plan on this machine, as a user could type it."""
    return [
        str(Path(sys.executable).parent / "snakemake"),
        "--configfile",
        str(plan.relative_to(ROOT)),
        "--workflow-profile",
        "workflow/profiles/default",
    ]


def refuse_broken_link(results: Path) -> None:
    """Raises UserError for a link whose target isn't there: its disk may not be mounted."""
    if results.is_symlink() and not results.exists():
        raise UserError(
            f"{results} is a link to {os.readlink(results)}, which isn't there; mount its disk, "
            "make that directory, or remove the link"
        )
