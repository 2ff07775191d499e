"""An image that is sent to a node."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import pytest

from steps.machine.runtime import host
from steps.machine.runtime.image import Image
from steps.run.placing import agents
from steps.run.placing.agent import Loaded
from tests.conftest import planned
from tests.run.test_outside import CLUSTER, HOSTS, run_of

IMAGE = Image(identity="sha256:0123", python="/opt/reprise/bin/python", made="made")
MIB = 1 << 20


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> str:
    """Of containers whose engine here has an image of 64 MiB."""
    saved = SimpleNamespace(save=lambda named: repeat(bytes(MIB), 64))

    @contextmanager
    def connected(*_: Any, **__: Any) -> Iterator[Any]:
        yield SimpleNamespace(images=SimpleNamespace(get=lambda identity: saved))

    monkeypatch.setattr(host, "connected", connected)
    return run_of(planned(*CLUSTER, HOSTS)).container


def sent(program: str, settings: str) -> str:
    """Why it can't be sent to a node whose agent is this program."""
    return agents._send("n1", lambda *_: [sys.executable, "-c", program], IMAGE, settings)


def test_a_node_loads_what_it_is_sent(settings: str) -> None:
    program = f"""
import sys
assert sys.stdin.buffer.readline() == {settings.encode()!r} + b"\\n"
assert len(sys.stdin.buffer.read()) == 64 * {MIB}
print({Loaded().model_dump_json()!r})
"""
    assert sent(program, settings) == ""


def test_a_node_that_refuses_it_says_why(settings: str) -> None:
    program = f"print({Loaded(error='docker has no space left').model_dump_json()!r})"
    assert sent(program, settings) == (
        "n1: image sha256:0123 can't be loaded there: docker has no space left"
    )


def test_a_node_that_takes_no_more_of_it_is_not_waited_for(
    settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "SEND_LIMIT_S", 1.0)
    begun = time.monotonic()
    said = sent("import sys, time; sys.stdin.buffer.read(1000); time.sleep(60)", settings)
    assert time.monotonic() - begun < 30
    assert said == (
        "n1: image sha256:0123 can't be sent: it wasn't loaded there within 1 s; look at its disk"
    )
