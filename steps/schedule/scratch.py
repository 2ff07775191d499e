"""The temporary folder of one ./reproduce, for all that it starts on this machine.

vLLM leaves a file there for each engine, a killed Snakemake a folder, libraries theirs. It goes
when the run ends; that of a run that was killed goes when the next one begins.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

RAYS = "RAY_TMPDIR"


def folder(mark: str) -> Path:
    """Its name is short: sockets lie in it, whose paths may have 107 characters."""
    return Path(tempfile.gettempdir()) / f"reprise-{mark}"


@contextmanager
def environment(mark: str, given: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """What a run starts gets this beside what it was given; the folder is gone afterwards.

    Ray stays where it is: its head's folder is that of all its nodes.
    """
    made = folder(mark)
    made.mkdir(mode=0o700, exist_ok=True)
    rays = given.get(RAYS, tempfile.gettempdir())
    try:
        yield {**given, "TMPDIR": str(made), RAYS: rays}
    finally:
        remove(mark)


def remove(mark: str) -> None:
    shutil.rmtree(folder(mark), ignore_errors=True)
