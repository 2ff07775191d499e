"""The environment of a scheduler: the driver's packages and Snakemake's plugin.

Apart from the driver's own, because Snakemake imports every plugin that is installed at each start,
and the Slurm plugin brings pandas: 0.4 s that users without Slurm don't need.
"""

import hashlib
import sys
from pathlib import Path

from steps.base import venv


def directory(name: str, root: Path) -> Path:
    """Named by the content of its two locks; resolved, because environments contain their path."""
    digest = hashlib.sha256()
    for lock in locks(name, root):
        digest.update(lock.read_bytes())
    return (root / ".envs").resolve() / f"{name}-{digest.hexdigest()[:12]}"


def locks(name: str, root: Path) -> tuple[Path, Path]:
    return root / "envs/driver.lock", root / f"envs/{name}.lock"


def make(name: str, root: Path) -> Path:
    """Its directory, made on first use. Raises UserError if a package can't be installed."""
    home = directory(name, root)
    if not venv.is_whole(home):
        print(f"making the environment of scheduler={name} in {home} (once)", file=sys.stderr)
        log = home.parent / f"{name}.log"
        with open(log, "w", encoding="utf-8") as words:
            venv.make(home, locks(name, root), root, log, words.write)
    return home
