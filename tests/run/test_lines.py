"""What a node's agent said before its connection ended is heard."""

import sys
import time

import pytest

from steps.base.errors import UserError
from steps.run.placing.lines import Line
from steps.run.placing.seen import Began

LIMIT_S = 60


class Slow(Line):
    """Reads as late as on a machine that has other work."""

    def _read(self) -> None:
        self._process.wait(LIMIT_S)
        time.sleep(0.5)
        super()._read()


def test_an_answer_of_an_agent_that_has_ended_is_heard() -> None:
    said = Began(error="it can't reach LoadGen's process").model_dump_json()
    line = Slow("n1", [sys.executable, "-c", f"print({said!r}); raise SystemExit(1)"], "/checkout")
    assert line.hear(Began, time.monotonic() + LIMIT_S).error == "it can't reach LoadGen's process"
    with pytest.raises(UserError, match="engines can't be started on n1: status 1; the checkout"):
        line.hear(Began, time.monotonic() + LIMIT_S)
