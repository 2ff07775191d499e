"""What a node lacks and is sent once, before engines start: the image they run in, and weights.

Each goes through a connection of its own to an agent there: a line that says what comes, then the
bytes, then the agent's answer (steps/run/placing/parcels.py).
"""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from steps import ROOT
from steps.base.errors import UserError
from steps.base.record import RECORD, Manifest, sha256_file
from steps.config.runtime import ContainerSettings
from steps.machine.runtime.image import Image
from steps.run.placing.lines import Commands
from steps.run.placing.parcels import ANSWER_LIMIT_S, CHUNK, LOAD, TAKE, Parcel, Taken

STALL_S = 600.0
"""How long a node may take nothing of what it is sent."""

SENT_AT_ONCE = 2
"""Nodes that are sent to at the same time: all of it leaves this machine by one network card."""

REPORT_S = 30.0
WATCH_S = 0.2


class Shipment(NamedTuple):
    """`what`: for a sentence. `option`: the agent's. `head`: the line, without its end. `chunks`:
    the bytes that follow. `size`: of them all, None where nothing says."""

    what: str
    option: str
    head: str
    chunks: Callable[[], Iterable[bytes]]
    size: int | None = None


def image_of(image: Image, settings: str) -> Shipment:
    """`settings`: of the containers, as JSON."""

    def chunks() -> Iterator[bytes]:
        from steps.machine.runtime.host import connected

        typed = ContainerSettings.model_validate_json(settings)
        with connected(typed, limit_s=ANSWER_LIMIT_S) as client:
            yield from client.images.get(image.identity).save(named=True)

    return Shipment(f"image {image.identity:.19}", LOAD, settings, chunks)


def weights_of(path: str, root: Path = ROOT) -> Shipment:
    """`path`: of their manifest, below `root`. Raises UserError if it can't be read."""
    file = root / path
    manifest = Manifest.read(file)
    files = {name: int(entry["bytes"]) for name, entry in manifest.files.items()}
    parcel = Parcel(
        path=path,
        sha256=sha256_file(file),
        manifest=file.read_text(encoding="utf-8"),
        record=file.with_name(RECORD).read_text(encoding="utf-8"),
        files=files,
    )

    def chunks() -> Iterator[bytes]:
        for name in files:
            with (manifest.directory / name).open("rb") as stream:
                while data := stream.read(CHUNK):
                    yield data

    return Shipment(str(file.parent), TAKE, parcel.model_dump_json(), chunks, sum(files.values()))


class Sending:
    """A shipment on its way to a node, whose agent `command` starts."""

    def __init__(self, name: str, command: Sequence[str], shipment: Shipment) -> None:
        self._name = name
        self._shipment = shipment
        self._begun_s = time.monotonic()
        self._limit_s = self._begun_s + STALL_S
        self._sent = 0
        self._late = ""
        self._over = threading.Event()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def failed(self) -> str:
        """Why the node can't have it, in a sentence, once it is there; "" if it can."""
        self._say(f"{self._shipment.what} is sent")
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            self._pass_on()
            said, complained = self._process.communicate(timeout=ANSWER_LIMIT_S + STALL_S)
            why = self._late or _answer(said, complained)
        except (UserError, OSError, subprocess.TimeoutExpired) as error:
            why = self._late or str(error)
        finally:
            self._over.set()
            self._process.kill()
            self._process.wait()
        return f"{self._name} can't be sent {self._shipment.what}: {why}" if why else ""

    def _pass_on(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # its answer says why it takes no more
            self._write(self._shipment.head.encode() + b"\n")
            for chunk in self._shipment.chunks():
                self._write(chunk)
                self._sent += len(chunk)

    def _write(self, data: bytes) -> None:
        """Only the node is held to STALL_S: a container engine may pack an image for longer
        before its first byte comes."""
        assert self._process.stdin is not None
        self._limit_s = time.monotonic() + STALL_S
        self._process.stdin.write(data)
        self._limit_s = time.monotonic() + ANSWER_LIMIT_S

    def _watch(self) -> None:
        """Ends it when nothing moves; a write that waits has no limit of its own."""
        report_s = self._begun_s + REPORT_S
        while not self._over.wait(WATCH_S):
            now = time.monotonic()
            if now > self._limit_s:
                self._late = "it takes nothing any more; look at its disk and its network"
                self._process.kill()
                return
            if now > report_s:
                self._say(progress(self._shipment, self._sent, now - self._begun_s))
                report_s = now + REPORT_S

    def _say(self, what: str) -> None:
        print(f"{self._name}: {what}", file=sys.stderr, flush=True)


def progress(shipment: Shipment, sent: int, took_s: float) -> str:
    """How far it is, with the time left where the size is known."""
    done = f"{sent / 1e9:.1f}"
    if not shipment.size or not sent:
        return f"{shipment.what}, {done} GB sent"
    left = took_s * (shipment.size - sent) / sent
    return f"{shipment.what}, {done} of {shipment.size / 1e9:.1f} GB sent, {left:.0f} s left"


def _answer(said: bytes, complained: bytes) -> str:
    """Why an agent can't use what it was sent, or ""."""
    last = said.decode(errors="replace").strip().splitlines()[-1:]
    if not last:
        return complained.decode(errors="replace").strip()[-200:] or "it ended without an answer"
    try:
        return Taken.model_validate_json(last[0]).error or ""
    except ValidationError:
        return f"it answered {last[0]:.80}"


def send(
    shipments: Sequence[tuple[str, Shipment]],
    starts: Mapping[str, Commands],
    working: Callable[[str], None],
) -> None:
    """Each shipment to its node. Raises UserError naming nodes that can't have theirs.

    `starts`: what starts an agent, by node. `working`: called at once and every REPORT_S until they
    are there: who waits for an answer may not wait long for the first word.
    """
    if not shipments:
        return

    def failed_of(name: str, one: Shipment) -> str:
        return Sending(name, starts[name](one.option), one).failed()

    with ThreadPoolExecutor(SENT_AT_ONCE) as pool:
        sending = [pool.submit(failed_of, name, one) for name, one in shipments]
        left: Collection[Future[str]] = sending
        while left:
            working(f"{len(left)} of {len(sending)} shipments to nodes are on their way")
            left = wait(left, REPORT_S).not_done
        failed = [why for one in sending if (why := one.result())]
    if failed:
        raise UserError("; ".join(failed))
