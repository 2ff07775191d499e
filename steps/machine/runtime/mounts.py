"""What a step's container sees of the machine: everything at its own path."""

from collections.abc import Iterable
from pathlib import Path

from steps.base.errors import UserError

Mounts = dict[str, dict[str, str]]
"""Mounts as the docker SDK takes them: path of the machine to path in the container, and mode."""


def of_step(root: Path, extra: Iterable[str]) -> Mounts:
    """The checkout read-only, its results writable, and read-only what lies elsewhere.

    Raises UserError for a mount that isn't there: an engine would create an empty directory.
    """
    found = {str(root): "ro"}
    for path in extra:
        if not Path(path).is_dir():
            raise UserError(
                f"{path} is mounted into containers, but isn't a directory; fix runtime.mounts"
            )
        found[path] = "ro"
    results = root / "results"
    # Where results are kept on another disk, the link is followed in the container too.
    found |= {str(path): "rw" for path in {results, results.resolve()}}
    return {path: {"bind": path, "mode": mode} for path, mode in found.items()}
