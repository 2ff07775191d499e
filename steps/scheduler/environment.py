"""The environment of a scheduler: the driver's packages and Snakemake's plugin.

Apart from the driver's own, because Snakemake imports every plugin that is installed at each start,
and the Slurm plugin brings pandas: 0.4 s that nobody without Slurm has to pay.
"""

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from steps.errors import UserError

INSTALL_LIMIT_S = 1200.0
COMPLETE = "complete"


def directory(name: str, root: Path) -> Path:
    """Named by the content of its two locks; a virtual environment knows its own true path."""
    digest = hashlib.sha256()
    for lock in locks(name, root):
        digest.update(lock.read_bytes())
    return (root / ".envs").resolve() / f"{name}-{digest.hexdigest()[:12]}"


def locks(name: str, root: Path) -> tuple[Path, Path]:
    return root / "envs/driver.lock", root / f"envs/{name}.lock"


def make(name: str, root: Path) -> Path:
    """Its directory, made on first use. Raises UserError if a package can't be had."""
    home = directory(name, root)
    if (home / COMPLETE).exists():
        return home
    print(f"making the environment of scheduler={name} in {home} (once)", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    try:
        venv.create(home, with_pip=True)
        wanted = [part for lock in locks(name, root) for part in ("-r", str(lock))]
        done = subprocess.run(
            [str(home / "bin/python"), "-m", "pip", "install", "--no-deps", "--no-input", *wanted],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INSTALL_LIMIT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{home} can't be made ({error}); mend that and run again") from error
    if done.returncode:
        said = (done.stdout + done.stderr).splitlines()
        errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
        raise UserError(
            f"envs/{name}.lock can't be installed: {(errors or ['pip gave no reason'])[-1]}; "
            "mend that and run again"
        )
    (home / COMPLETE).touch()
    return home
