"""What is looked at only as often as it may cost."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

Found = TypeVar("Found")


class Rested(Generic[Found]):
    """Calls a function at most so often that it costs `share` of a core; between, what it said
    last."""

    def __init__(self, look: Callable[[], Found], share: float) -> None:
        self._look = look
        self._share = share
        self._due_s = 0.0
        self.latest: Found | None = None

    def read(self) -> Found | None:
        """New where it is due, else None."""
        now = time.monotonic()
        if now < self._due_s:
            return None
        before = time.process_time()
        self.latest = self._look()
        self._due_s = now + (time.process_time() - before) / self._share
        return self.latest
