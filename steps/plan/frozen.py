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

RUNS_NOTHING = (
    *("-n", "--dry-run", "--dryrun", "--summary", "--dag", "--rulegraph", "--lint", "--report"),
)
"""What snakemake is asked without running anything."""


def frozen_plan(root: Path, overrides: list[str], site: Path | None = None) -> Path:
    """The plan of these overrides; composed only if `conf/`, code or locks changed since.

    Composition is a pure function of what the key covers: `conf/` has no resolver that reads the
    environment, the clock or the machine.
    """
    refuse_broken_link(root / "results")
    for text in [*overrides, *([] if site is None else [str(site)])]:
        if not _is_utf8(text):
            raise UserError(f"{text!r} isn't UTF-8, and a plan holds nothing else; fix it")
    read = ("conf/**/*.yaml", "conf/**/*.json", "envs/*.lock", "steps/**/*.py")
    files = [path for pattern in read for path in root.glob(pattern)]
    key = digest_files(files, root) + canonical_json(overrides)
    if site is not None and site.is_file():
        key += site.name + site.read_text(encoding="utf-8", errors="replace")
    index = root / "results/plans/index" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    if index.is_file():
        name = index.read_text(encoding="utf-8", errors="replace").strip()
        path = root / "results/plans" / f"{name}.json"
        # A loss of power leaves files that are empty or zeros.
        if path.is_file() and sha256_file(path)[:12] == name:
            return path
    from steps.plan.make import make
    from steps.plan.plan import freeze

    path = freeze(make(root, overrides, site), root)
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
