"""Which of the shell's variables reach a measured step: those listed here, and no others. `python
-m steps.base.variables measured COMMAND...` becomes the command without them; after "driver" only
Python's own are dropped.

A module path, an installer's target, a setting of vLLM or ROCm that a login script exports would
decide what runs, and no record would say so. What an engine needs is set in `engine.environment`.
"""

import os
import sys
from collections.abc import Mapping

from steps.base import installer, threads

ACCELERATORS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""A scheduler names a job's accelerators by them."""

KEPT = frozenset(
    (
        *installer.KEPT,
        *("SHELL", "TERM", "COLORTERM", "NO_COLOR", "COLUMNS", "LINES", "TZ", "LANGUAGE"),
        *("HOSTNAME", "TMP", "TEMP", "SSH_AUTH_SOCK", "KUBECONFIG", "RAY_ADDRESS"),
        *(*threads.COUNTS, threads.BINDING, *ACCELERATORS),
    )
)
STARTS = ("LC_", "XDG_", "SLURM_", "SLURMD_", "DOCKER_", "CONTAINER_", "KUBERNETES_", "REPRISE_")
"""What names that are kept too begin with."""

PYTHONS = "PYTHON"
"""What Python's own begin with: they say where it looks for modules."""

COUNT = "REPRISE_DROPPED"
"""Tells a step how many it doesn't see."""

NO_USER_SITE = {"PYTHONNOUSERSITE": "1"}
"""Packages of the user's home would come before an image's."""


def kept(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A measured process's variables, with the count of the others."""
    found = {name: value for name, value in environment.items() if _is_kept(name)}
    count = len(environment.keys() - found.keys() - NO_USER_SITE.keys()) + dropped(environment)
    return {**found, **NO_USER_SITE, COUNT: str(count)}


def words(measured: bool, environment: Mapping[str, str] = os.environ) -> list[str]:
    """What is put before a step's command: drops what it must not see. Values aren't in it, as
    everybody can see command lines. A step that isn't measured loses Python's only: it may need
    tokens, and addresses of indexes."""
    names = sorted(
        name
        for name in environment.keys() - NO_USER_SITE.keys()
        if name.startswith(PYTHONS) or (measured and not _is_kept(name))
    )
    given = {**NO_USER_SITE, COUNT: str(len(names))}
    removed = [word for name in names for word in ("-u", name)]
    return ["env", *removed, *(f"{name}={value}" for name, value in given.items())]


def _is_kept(name: str) -> bool:
    return name in KEPT or name.startswith(STARTS)


def dropped(environment: Mapping[str, str] = os.environ) -> int:
    """How many of the shell's variables this process doesn't see; 0 where nobody counted."""
    count = environment.get(COUNT, "0")
    return int(count) if count.isdecimal() else 0


def main(arguments: list[str]) -> None:
    kind, *command = arguments
    whole = [*words(kind == "measured"), *command]
    os.execvp(whole[0], whole)


if __name__ == "__main__":
    main(sys.argv[1:])
