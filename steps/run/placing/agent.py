"""A node's side: `python -m steps.run.placing.agent`, started in its checkout over SSH or by srun.

Reads a Question from its stdin, a line of JSON, and answers with what it has seen; then reads Begin
and starts engines, in the image if there is one. They end with it, and it ends with its stdin: so
nothing stays on a node, however LoadGen's process ends. What engines print goes to its stderr.
"""

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NoReturn

from steps import ROOT
from steps.base import variables
from steps.base.errors import UserError, shown
from steps.base.processes import die_with_parent
from steps.base.record import Manifest, sha256_file
from steps.base.strict import Strict
from steps.base.version import Version
from steps.config.runtime import ContainerSettings
from steps.machine.probes.machine import Prober, of_vendor
from steps.machine.probes.values import Accelerator
from steps.run.engines.accelerators import ASKED_AGAIN_S, FREED_S, taken
from steps.run.placing import node_clocks
from steps.run.placing.parcels import LOAD, TAKE, Taken, load, take
from steps.run.placing.seen import Began, Begin, Question, Seen
from steps.run.placing.starter import handed

PEER = "SSH_CONNECTION"
"""sshd's variable: the client's address and port, then this machine's."""

NODE = "SLURMD_NODENAME"
"""Slurm's variable with the name of the node that a step is on."""

REACH_LIMIT_S = 10.0
END_S = 8.0


USES = {LOAD: load, TAKE: take}
"""What an agent does with what it is sent."""


def main() -> NoReturn:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the end of stdin says it as well
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.argv[1:] == [node_clocks.HOLD]:
        sys.exit(node_clocks.hold(ROOT))
    if sys.argv[1:]:
        sys.exit(_given(USES[sys.argv[1]]))
    question = Question.model_validate_json(sys.stdin.readline())
    mine = _node_is_ours()
    _say(seen(question, held=mine is None))
    if mine is not None and not question.hold:
        mine.close()
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    engines, error = None, None
    begin = Begin.model_validate_json(line)
    try:
        _reach(begin)
        engines = _started(begin, question) if begin.count else None
    except UserError as complaint:
        error = shown(str(complaint))
    _say(Began(error=error))
    if engines is None:
        sys.exit(1 if error else 0)
    ending = threading.Event()
    threading.Thread(target=_watched, args=(engines, ending), daemon=True).start()
    for line in sys.stdin:
        _say(seen(Question.model_validate_json(line), held=False))
    ending.set()
    _end(engines)
    sys.stdout.flush()
    os._exit(0)


def _say(answer: Strict) -> None:
    print(answer.model_dump_json(), flush=True)


def seen(question: Question, held: bool, prober: Prober | None = None) -> Seen:
    """What this node is."""
    asked = prober or Prober()
    listed = _freed(question, asked)
    image, complaint = _image(question)
    version = Version.of(ROOT)
    results = ROOT / "results"
    return Seen(
        name=_name(),
        identity=f"{_name()} {_boot()}",
        peer=os.environ.get(PEER, "").partition(" ")[0],
        held=held,
        accelerators=listed,
        problems=tuple(asked.problems),
        image=image,
        engine=complaint,
        weights={path: _weights(path, digest) for path, digest in question.weights.items()},
        commit=version.commit,
        changed=version.changed,
        clock_s=time.time(),
        free_gb=shutil.disk_usage(results if results.exists() else ROOT).free / 1e9,
    )


def _freed(question: Question, asked: Prober) -> tuple[Accelerator, ...]:
    """The accelerators; for a run, once what has just ended has freed their memory, or has had the
    time to."""
    until = time.monotonic() + FREED_S
    while True:
        known = (of_vendor(vendor, asked) for vendor in question.vendors)
        found = next(filter(None, known), ())
        if not question.hold or not taken(found) or time.monotonic() >= until:
            return found
        time.sleep(ASKED_AGAIN_S)


def _name() -> str:
    """The node's. Slurm's own, where it has started this: it may have several on one machine."""
    return os.environ.get(NODE) or platform.node()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _node_is_ours() -> socket.socket | None:
    """Held until this process ends; None if another run's agent holds it. In the kernel's own name
    space, where nothing is left behind and every user sees it.
    """
    taken = socket.socket(socket.AF_UNIX)
    try:
        taken.bind(f"\0reprise-node-{_name()}")
    except OSError:
        taken.close()
        return None
    return taken


def _image(question: Question) -> tuple[bool | None, str]:
    """Whether the image is there, and why the container engine can't say."""
    if question.image is None:
        return None, ""
    from steps.machine.runtime.host import connected, image_id

    try:
        settings = ContainerSettings.model_validate_json(question.container)
        with connected(settings) as client:
            return image_id(client, question.image.identity) is not None, ""
    except UserError as error:
        return False, shown(str(error))


def _weights(path: str, digest: str) -> str | None:
    """What is wrong with an artifact's copy here; "" if nothing is, None if there is none. Files
    are read where they were written after their manifest; of others the size has to be right.
    """
    manifest = ROOT / path
    if not manifest.parent.exists():
        return None
    try:
        if sha256_file(manifest) != digest:
            return "is another than here; copy it again (rsync -a)"
        wrong = Manifest.read(manifest).altered()
    except UserError as error:
        return f"can't be used: {error}"
    return f"is damaged: {wrong[0]}" if wrong else ""


def _given(use: Callable[[IO[bytes]], None]) -> int:
    """Use what comes through stdin, and say whether that went well."""
    try:
        use(sys.stdin.buffer)
    except UserError as error:
        _say(Taken(error=shown(str(error))))
        return 1
    _say(Taken())
    return 0


def _started(begin: Begin, question: Question) -> "subprocess.Popen[bytes]":
    """What starts this node's engines."""
    own = {name: os.environ[name] for name in variables.ACCELERATORS if name in os.environ}
    paper = handed(begin.model_copy(update={"variables": own}))
    command = [*_launcher(question), "-m", "steps.run.placing.starter"]
    # The launcher of containers calls a step by these.
    command += ["--output", str(paper), "--log", "the log of this run"]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        cwd=ROOT,
        env=variables.kept(),
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),
    )


def _launcher(question: Question) -> list[str]:
    """What takes the arguments of Python: this environment's, or that of the container."""
    if question.image is None:
        return [sys.executable]
    words = question.image.model_dump_json(), question.container
    return [sys.executable, "-m", "steps.machine.runtime", *words]


def _reach(begin: Begin) -> None:
    """Raises UserError if LoadGen's process can't be reached."""
    try:
        socket.create_connection((begin.host, begin.port), REACH_LIMIT_S).close()
    except OSError as error:
        raise UserError(
            f"it can't reach LoadGen's process at {begin.host}:{begin.port} "
            f"({error.strerror or error}); is there a firewall between?"
        ) from error


def _watched(engines: "subprocess.Popen[bytes]", ending: threading.Event) -> None:
    """Engines whose starter has ended are gone; so is this process then, which its connection
    tells."""
    status = engines.wait()
    if ending.is_set():
        return
    if status:
        said = f"what started the engines of {_name()} ended (status {status})"
        print(said, file=sys.stderr, flush=True)
    os._exit(1 if status else 0)


def _end(engines: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):
        engines.terminate()
    try:
        engines.wait(END_S)
    except subprocess.TimeoutExpired:
        engines.kill()


if __name__ == "__main__":
    main()
