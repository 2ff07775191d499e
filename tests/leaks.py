"""Runs a command and fails if it leaves something behind: `python -m tests.leaks COMMAND...`

The exit status is the command's own, and 1 if something is left: pytest's 5, that there was no
test, is no failure of `make test-real`, and a leak is.

Looked for are processes, sockets that listen, temporary files and folders, containers and mounts.
Others may work on the same machine meanwhile: the command has a temporary folder of its own, its
processes have a mark, and of containers only those with Reprise's label count, another checkout's
among them. What it writes elsewhere, as below /dev/shm, isn't seen.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from steps import ROOT

MARK = "REPRISE_LEAK_CHECK"
"""Whatever the command starts has this variable, with a value of its own."""

KEPT = {
    "ray": "Ray keeps its logs of earlier sessions",
    "hsperfdata_*": "Java's, empty",
    "uv-setuptools-*.lock": "uv leaves its lock of a package that it built",
    "reprise-*": "that of a ./reproduce that a test killed: it goes when the next one begins",
}
"""Names that may stay in the command's own temporary folder, and why."""

PYTESTS = "PYTEST_DEBUG_TEMPROOT"
"""Where pytest keeps the folders of its last three runs: no leak, and short names for sockets."""

SETTLE_S = 10.0
"""What was told to end gets this long."""

CHECKOUT = "org.reprise.checkout"
"""The label that every container of Reprise has; imported, it would need Docker's package."""

PR_SET_CHILD_SUBREAPER = 36
ENGINES = ("docker", "podman")
LIMIT_S = 60


@dataclass(frozen=True)
class Seen:
    """What is there: by kind, the things that are there with words for the reader."""

    things: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def since(self, before: "Seen") -> dict[str, list[str]]:
        """What is new, by kind."""
        return {
            kind: sorted(
                words for key, words in found.items() if key not in before.things.get(kind, {})
            )
            for kind, found in self.things.items()
        }


def look(mark: str, own: Path) -> Seen:
    """`own`: the command's temporary folder."""
    ours = dict(processes(mark))
    return Seen(
        {
            "process": ours,
            "socket": dict(sockets(ours.keys())),
            "temporary": dict(entries(own)),
            "container": dict(containers()),
            "mount": dict(mounts(own)),
        }
    )


def processes(mark: str) -> Iterator[tuple[str, str]]:
    """Those with the mark in their environment, and orphans of such ones."""
    for path in Path("/proc").glob("[0-9]*"):
        own = int(path.name)
        if own == os.getpid():
            continue
        try:
            marked = f"{MARK}={mark}".encode() in (path / "environ").read_bytes().split(b"\0")
            stat = (path / "stat").read_text().rpartition(")")[2].split()
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended, or is another user's
            continue
        if stat[0] != "Z" and (marked or int(stat[1]) == os.getpid()):
            yield path.name, f"{own}: {words.strip()[:150] or stat[0]}"


def sockets(ours: Collection[str]) -> Iterator[tuple[str, str]]:
    """Addresses that one of our processes listens at."""
    owners = _holders(ours)

    for name in ("tcp", "tcp6"):
        for line in _lines(Path("/proc/net") / name)[1:]:
            _, local, _, state, _, _, _, _, _, number, *_ = line.split()
            if state == "0A" and f"socket:[{number}]" in owners:  # it listens
                port = int(local.rpartition(":")[2], 16)
                yield f"{name} {local}", f"port {port} ({name})"
    for line in _lines(Path("/proc/net/unix"))[1:]:
        fields = line.split()
        listens = len(fields) == 8 and int(fields[3], 16) & 0x10000
        if listens and f"socket:[{fields[6]}]" in owners:
            yield fields[7], f"unix {fields[7]}"


def _holders(ours: Collection[str]) -> set[str]:
    """What descriptors of our processes are."""
    found = set()
    for process in ours:
        folder = Path("/proc") / process / "fd"
        with suppress(OSError):  # it has ended
            for descriptor in os.listdir(folder):
                with suppress(OSError):
                    found.add(os.readlink(folder / descriptor))
    return found


def entries(own: Path) -> Iterator[tuple[str, str]]:
    for path in own.iterdir():
        if not any(path.match(name) for name in KEPT):
            yield str(path), str(path)


def containers() -> Iterator[tuple[str, str]]:
    """Reprise's, of every engine that is here and answers."""
    for engine in ENGINES:
        if shutil.which(engine) is None:
            continue
        shown = "{{.ID}} {{.Image}} {{.Names}}"
        asked = [engine, "ps", "--all", "--filter", f"label={CHECKOUT}", "--format", shown]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        for line in done.stdout.splitlines() if done.returncode == 0 else ():
            yield f"{engine} {line.split()[0]}", f"{engine}: {line}"


def mounts(own: Path) -> Iterator[tuple[str, str]]:
    """Those in the command's folder, in pytest's, and in the checkout."""
    for line in _lines(Path("/proc/self/mountinfo")):
        fields = line.split()
        path = fields[4].replace("\\040", " ")
        if any(place in path for place in (str(own), "/pytest-of-", str(ROOT))):
            yield f"{fields[0]} {path}", path


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def run(command: list[str]) -> tuple[int, dict[str, list[str]]]:
    """The command's exit status, and what it left behind, by kind.

    Its temporary folder is removed if it left nothing there.
    """
    # Orphans become this process's children, also those that cleared their environment.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    mark = uuid.uuid4().hex
    own = Path(tempfile.mkdtemp(prefix="tests-"))
    before = look(mark, own)
    environment = {PYTESTS: tempfile.gettempdir(), **os.environ, MARK: mark, "TMPDIR": str(own)}
    status = _ended(subprocess.Popen(command, env=environment))
    limit, clean = time.monotonic() + SETTLE_S, 0
    while True:
        _reap()
        left = {kind: new for kind, new in look(mark, own).since(before).items() if new}
        clean = 0 if left else clean + 1
        # A process that another started while they were listed is found by the second look.
        if clean == 2 or time.monotonic() > limit:
            if "temporary" not in left:
                shutil.rmtree(own, ignore_errors=True)
            return status, left
        time.sleep(0.5)


def _ended(process: "subprocess.Popen[bytes]") -> int:
    """Its exit status; orphans that end before it are reaped, as the machine's first process does.

    An interrupt at a terminal is the command's too, which ends by it.
    """
    while process.returncode is None:
        with suppress(KeyboardInterrupt):
            one, status = os.waitpid(-1, 0)
            if one == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode


def _reap() -> None:
    """Orphans that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main() -> int:
    status, left = run(sys.argv[1:])
    for kind, things in left.items():
        for thing in things:
            print(f"left behind: {kind} {thing}", file=sys.stderr)
    return 1 if left else status


if __name__ == "__main__":
    sys.exit(main())
