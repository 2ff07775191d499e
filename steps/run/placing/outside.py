"""`python -m steps.run.placing.outside OUTPUT IMAGE SETTINGS -- COMMAND...`: a run in a container
whose engines are on several nodes.

A container has neither the user's keys nor Slurm's tools nor a container engine. So this process,
outside of it, listens on a socket in the checkout's results, and gives the run that connects a
process that places engines (steps/run/placing/nodes.py), whose stdin and stdout are the connection.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from steps import ROOT
from steps.base import processes, wrapped
from steps.base.confidential.logs import scrub
from steps.config.runtime import ContainerSettings
from steps.run.placing.launch import socket_of

NODES = "steps.run.placing.nodes"

Placer = subprocess.Popen[bytes]

END_S = 15.0
"""How long what places engines may take to end after the command; it ends agents in 10 s."""


def main(arguments: list[str]) -> int:
    """The command's exit status; signals that end this process end the command first."""
    processes.die_with_parent(signal.SIGTERM)
    split = arguments.index("--")
    (output, manifest, settings), command = arguments[:split], arguments[split + 1 :]
    log = Path(_after(command, "--log"))
    nodes = log.with_name(f"{log.stem}.nodes{log.suffix}")
    os.chdir(ROOT)
    path = socket_of(Path(output).parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # of one that was killed
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        path.chmod(0o600)
        door.listen()
        placers: list[Placer] = []
        given = door, nodes, manifest, settings, placers
        threading.Thread(target=_serve, args=given, daemon=True).start()
        try:
            return wrapped.run(without_accelerators(command, settings))
        finally:
            path.unlink(missing_ok=True)
            _end(placers)
            if nodes.exists():
                with contextlib.suppress(OSError):
                    scrub(nodes, json.loads(_after(command, "--config")))


def _after(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def without_accelerators(command: list[str], settings: str) -> list[str]:
    """LoadGen's own container has no engine, and its machine perhaps no accelerator."""
    typed = ContainerSettings.model_validate_json(settings)
    bare = typed.model_copy(update={"devices": (), "groups": (), "gpus": None})
    return [bare.model_dump_json() if word == settings else word for word in command]


def _end(placers: list[Placer]) -> None:
    """They end with their connection. One that doesn't, as it still sends something to nodes, is
    killed: nothing may reach the log once it is cleaned."""
    until = time.monotonic() + END_S
    for placer in placers:
        try:
            placer.wait(max(until - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            os.killpg(placer.pid, signal.SIGKILL)  # a session of its own
            placer.wait()


def _serve(
    door: socket.socket, log: Path, manifest: str, settings: str, placers: list[Placer]
) -> None:
    command = [sys.executable, "-m", NODES, manifest, settings]
    while True:
        try:
            connection, _ = door.accept()
        except OSError:  # it is closed: the command has ended
            return
        with connection:
            try:
                placers.append(_place(command, connection, log))
            except OSError as error:  # the run hears that its connection has ended
                print(f"error: nodes can't be started: {error}", file=sys.stderr, flush=True)


def _place(command: Sequence[str], connection: socket.socket, log: Path) -> Placer:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as words:
        return subprocess.Popen(
            command,
            stdin=connection.fileno(),
            stdout=connection.fileno(),
            stderr=words,
            cwd=ROOT,
            start_new_session=True,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
