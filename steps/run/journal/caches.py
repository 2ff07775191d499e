"""Files that appear in caches of compiled kernels after the engine's warm-up."""

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from steps.run.journal.rested import Rested


class Caches:
    """`compiled`: cache, file (below the cache: a journal names no site), and when it appeared, in
    s of the monotonic clock."""

    def __init__(
        self, caches: Sequence[tuple[str, str]], passing: Sequence[str], share: float
    ) -> None:
        self._caches = caches
        self._passing = tuple(passing)
        self._known = {path for _, _, path in self._files()}
        self._rested = Rested(self._look, share)

    def missing(self) -> None:
        return None

    def read(self) -> dict[str, Any]:
        found = self._rested.read() if self._caches else None
        return {"compiled": found} if found else {}

    def last(self) -> list[tuple[str, str, float]]:
        """Files that are new since the last call, even a recent one."""
        return self._look() if self._caches else []

    def _look(self) -> list[tuple[str, str, float]]:
        found = []
        to_monotonic = time.monotonic() - time.time()
        for name, top, path in self._files():
            if path in self._known:
                continue
            try:
                appeared = os.stat(path).st_ctime
            except OSError:  # gone again
                continue
            self._known.add(path)
            below = os.path.relpath(path, os.path.dirname(top) if path == top else top)
            found.append((name, below, round(appeared + to_monotonic, 3)))
        return found

    def _files(self) -> Iterator[tuple[str, str, str]]:
        for name, top in self._caches:
            for path in [top] if os.path.isfile(top) else _below(top):
                if not path.endswith(self._passing):
                    yield name, top, path


def _below(top: str) -> Iterator[str]:
    for folder, _, names in os.walk(top):
        for name in names:
            yield os.path.join(folder, name)
