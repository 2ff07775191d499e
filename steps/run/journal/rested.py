"""Reads a value only as often as its cost allows."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

Found = TypeVar("Found")


class Rested(Generic[Found]):
    """Calls a function so rarely that it costs at most `share` of a core; keeps its last value
    between.
    """

    def __init__(self, look: Callable[[], Found], share: float) -> None:
        self._look = look
        self._share = share
        self._due_s = 0.0
        self.latest: Found | None = None

    def read(self) -> Found | None:
        """A new value if it is due, else None."""
        now = time.monotonic()
        if now < self._due_s:
            return None
        before = time.process_time()
        self.latest = self._look()
        self._due_s = now + (time.process_time() - before) / self._share
        return self.latest
