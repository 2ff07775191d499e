"""What a node lacks and is sent: an image, weights."""

import io
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.base.record import MANIFEST, Manifest, publish, sha256_file
from steps.machine.runtime import host
from steps.machine.runtime.image import Image
from steps.run.placing import agent, sending
from steps.run.placing.parcels import LOAD, TAKE, Parcel, Taken, take
from steps.run.placing.sending import Sending, Shipment, image_of, progress, send, weights_of
from tests.conftest import planned
from tests.run.test_outside import CLUSTER, HOSTS, run_of

IMAGE = Image(identity="sha256:0123", python="/opt/reprise/bin/python", made="made")
MIB = 1 << 20
PATH = "results/a/model/manifest.json"


def failed(program: str, shipment: Shipment) -> str:
    """Why a node whose agent is this program can't have it."""
    return Sending("n1", [sys.executable, "-c", program], shipment).failed()


def answer(error: str | None = None) -> str:
    return f"print({Taken(error=error).model_dump_json()!r})"


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> Shipment:
    """One of 64 MiB."""
    saved = SimpleNamespace(save=lambda named: repeat(bytes(MIB), 64))

    @contextmanager
    def connected(*_: Any, **__: Any) -> Iterator[Any]:
        yield SimpleNamespace(images=SimpleNamespace(get=lambda identity: saved))

    monkeypatch.setattr(host, "connected", connected)
    return image_of(IMAGE, run_of(planned(*CLUSTER, HOSTS)).container)


def test_a_node_loads_the_image_that_it_is_sent(image: Shipment) -> None:
    assert image.option == LOAD
    program = f"""
import sys
assert sys.stdin.buffer.readline() == {image.head.encode()!r} + b"\\n"
assert len(sys.stdin.buffer.read()) == 64 * {MIB}
{answer()}
"""
    assert failed(program, image) == ""


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (answer("docker has no space left"), "docker has no space left"),
        ("print('Welcome to node1')", "it answered Welcome to node1"),
        ("import sys; sys.exit('ssh: no route to host')", "ssh: no route to host"),
        ("", "it ended without an answer"),
    ],
)
def test_a_node_that_refuses_it_says_why(image: Shipment, program: str, why: str) -> None:
    assert failed(program, image) == f"n1 can't be sent image sha256:0123: {why}"


def test_a_node_that_takes_no_more_is_not_waited_for(
    image: Shipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "STALL_S", 1.0)
    begun = time.monotonic()
    said = failed("import sys, time; sys.stdin.buffer.read(1000); time.sleep(60)", image)
    assert time.monotonic() - begun < 30
    assert said.endswith("it takes nothing any more; look at its disk and its network")


def test_a_node_is_not_blamed_for_an_image_that_takes_long_to_be_packed(
    image: Shipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def packed() -> Iterator[bytes]:
        time.sleep(2.0)
        yield b"an image"

    monkeypatch.setattr(sending, "STALL_S", 0.5)
    program = f"import sys; sys.stdin.buffer.read(); {answer()}"
    assert failed(program, image._replace(chunks=packed)) == ""


def test_a_slow_node_that_still_takes_some_is_waited_for(
    image: Shipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "STALL_S", 2.0)
    program = f"""
import sys, time
while sys.stdin.buffer.read(8 * {MIB}):
    time.sleep(0.5)
{answer()}
"""
    assert failed(program, image) == ""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A checkout that has weights."""
    home = tmp_path / "here"
    destination = (home / PATH).parent
    with publish(destination, step="model", config={}, inputs={}, code="") as workspace:
        (workspace.directory / "shards").mkdir()
        (workspace.directory / "shards/1.safetensors").write_bytes(os.urandom(5 * MIB + 7))
        (workspace.directory / "config.json").write_text("{}", encoding="utf-8")
        (workspace.directory / "empty").touch()
    return home


def passed(shipment: Shipment, change: Callable[[bytes], bytes] = bytes) -> io.BytesIO:
    body = change(b"".join(shipment.chunks()))
    return io.BytesIO(shipment.head.encode() + b"\n" + body)


def test_weights_arrive_as_they_are(here: Path, tmp_path: Path) -> None:
    shipment = weights_of(PATH, here)
    assert shipment.option == TAKE and shipment.size == 5 * MIB + 7 + 2
    take(passed(shipment), tmp_path / "there")
    found = Manifest.read(tmp_path / "there" / PATH)
    assert found.damage() == [] and found.altered() == []
    assert sha256_file(tmp_path / "there" / PATH) == sha256_file(here / PATH)
    assert os.listdir((tmp_path / "there" / PATH).parent.parent) == ["model"]


def turned(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda body: body[:-9], "the connection ended in the middle"),
        (turned, "does not match its sha256"),
    ],
)
def test_weights_that_came_damaged_leave_nothing(
    here: Path, tmp_path: Path, change: Callable[[bytes], bytes], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        take(passed(weights_of(PATH, here), change), tmp_path / "there")
    assert os.listdir((tmp_path / "there" / PATH).parent.parent) == []


@pytest.mark.parametrize("path", ["../x/manifest.json", "/x/manifest.json"])
def test_nothing_is_written_outside_of_the_checkout(here: Path, tmp_path: Path, path: str) -> None:
    shipment = weights_of(PATH, here)
    parcel = Parcel.model_validate_json(shipment.head)
    for bad in (
        parcel.model_copy(update={"path": path}),
        parcel.model_copy(update={"files": {path: 1}}),
    ):
        with pytest.raises(UserError, match="belong below the checkout"):
            take(io.BytesIO(bad.model_dump_json().encode() + b"\nx"), tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(UserError, match=r"it needs 0\.0 GB and has 0\.0 GB free"):
        take(passed(weights_of(PATH, here)), tmp_path / "there")


def test_of_two_nodes_with_one_disk_both_have_them(here: Path, tmp_path: Path) -> None:
    for _ in range(2):
        take(passed(weights_of(PATH, here)), tmp_path / "there")
    assert Manifest.read(tmp_path / "there" / PATH).damage() == []


def test_other_weights_in_the_same_place_stay(here: Path, tmp_path: Path) -> None:
    place = (tmp_path / "there" / PATH).parent
    with publish(place, step="model", config={"other": 1}, inputs={}, code=""):
        pass
    before = sha256_file(place / MANIFEST)
    with pytest.raises(UserError, match="can't be written"):
        take(passed(weights_of(PATH, here)), tmp_path / "there")
    assert sha256_file(place / MANIFEST) == before


def test_what_a_killed_agent_left_is_removed(here: Path, tmp_path: Path) -> None:
    home = (tmp_path / "there" / PATH).parent
    left = home.with_name(f".model.{platform.node()}-4194305.tmp")
    left.mkdir(parents=True)
    take(passed(weights_of(PATH, here)), tmp_path / "there")
    assert not left.exists()


def test_a_real_agent_takes_what_a_run_sends(here: Path, tmp_path: Path) -> None:
    """Over its stdin, into its own checkout, whose agent is this one's."""
    there = tmp_path / "there"
    program = f"""
import sys
from pathlib import Path
from steps.run.placing import agent, parcels
sys.exit(agent._given(lambda stream: parcels.take(stream, Path({str(there)!r}))))
"""
    waited: list[str] = []
    commands = {"n1": lambda *_: [sys.executable, "-c", program]}
    send([("n1", weights_of(PATH, here))], commands, waited.append)
    assert waited[0] == "1 of 1 shipments to nodes are on their way"
    assert Manifest.read(there / PATH).damage() == []


def test_nodes_that_cannot_have_theirs_are_all_named(here: Path) -> None:
    shipment = weights_of(PATH, here)
    commands = {
        name: lambda *_, why=why: [sys.executable, "-c", answer(why)]
        for name, why in (("n1", "disk full"), ("n2", None), ("n3", "read-only"))
    }
    with pytest.raises(UserError) as caught:
        send([(name, shipment) for name in commands], commands, lambda working: None)
    assert str(caught.value).count("can't be sent") == 2
    assert "disk full" in str(caught.value) and "read-only" in str(caught.value)


def test_progress_says_how_long_it_still_takes(here: Path) -> None:
    shipment = weights_of(PATH, here)._replace(what="weights", size=4 * 10**9)
    assert progress(shipment, 10**9, 10.0) == "weights, 1.0 of 4.0 GB sent, 30 s left"
    assert progress(shipment._replace(size=None), 10**9, 10.0) == "weights, 1.0 GB sent"


def test_a_node_says_whether_it_has_the_weights(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "ROOT", here)
    digest = sha256_file(here / PATH)
    assert agent._weights(PATH, digest) == ""
    assert agent._weights("results/b/model/manifest.json", digest) is None
    assert "another than here" in (agent._weights(PATH, "0" * 64) or "")
    (here / PATH).unlink()
    assert "can't be used" in (agent._weights(PATH, digest) or "")
