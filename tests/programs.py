"""Tests that need programs which a bare Debian lacks: `make test-real` installs and runs them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T", bound=Callable[..., object])
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Where Debian has its daemons, which an ordinary user's PATH leaves out."""

SERVICE_LOGS = "REPRISE_SERVICE_LOGS"
"""The variable with which `make test-real` tells where services' logs are kept."""


def missing(programs: tuple[str, ...], packages: str) -> str:
    """Why they can't be used, empty if they are there."""
    absent = [name for name in programs if shutil.which(name, path=PATH) is None]
    return f"no {' and no '.join(absent)} (apt-get install {packages})" if absent else ""


def needs(*programs: str, packages: str) -> Callable[[T], T]:
    """Marks a test as one of `make test-real` that is skipped where a program is absent."""
    why = missing(programs, packages)

    def marked(test: T) -> T:
        return pytest.mark.system(pytest.mark.skipif(bool(why), reason=why)(test))

    return marked


def logs_of(service: str, home: Path) -> Path:
    """Where a test's own service writes its log: a folder that `make test-real` keeps on failure,
    else one in the test's own.
    """
    folder = Path(os.environ.get(SERVICE_LOGS, home)) / f"{service}-log"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
