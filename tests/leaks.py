"""Runs a command and fails if it leaves something behind: `python -m tests.leaks COMMAND...`

Looked for are processes, sockets that listen, files and folders of the shared temporary folders,
containers and mounts. Files, containers and mounts that others make meanwhile on the same machine
count too, so a machine that somebody works on may give false alarms.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MARK = "REPRISE_LEAK_CHECK"
"""Whatever the command starts has this variable, with a value of its own."""

FOLDERS = (Path("/tmp"), Path("/dev/shm"))

KEPT = {
    "pytest-of-*": "pytest keeps the folders of its last three runs",
    "ray": "Ray keeps its logs of earlier sessions",
    "hsperfdata_*": "Java's, empty",
    "libpod_lock": "podman's own, which this check asks too",
}
"""Names that may stay in a temporary folder, and why."""

SETTLE_S = 10.0
"""What was told to end gets this long."""

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


def look(mark: str, folders: tuple[Path, ...] = FOLDERS) -> Seen:
    ours = dict(processes(mark))
    return Seen(
        {
            "process": ours,
            "socket": dict(sockets(ours.keys())),
            "temporary": dict(entries(folders)),
            "container": dict(containers()),
            "mount": dict(mounts()),
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
    """Addresses that one of our processes listens at, or nobody that is known."""
    owners = _holders()

    def others(number: str) -> bool:
        holders = owners.get(f"socket:[{number}]", set())
        return bool(holders) and not holders & set(ours)

    for name in ("tcp", "tcp6"):
        for line in _lines(Path("/proc/net") / name)[1:]:
            _, local, _, state, _, _, _, _, _, number, *_ = line.split()
            if state == "0A" and not others(number):  # it listens
                port = int(local.rpartition(":")[2], 16)
                yield f"{name} {local}", f"port {port} ({name})"
    for line in _lines(Path("/proc/net/unix"))[1:]:
        fields = line.split()
        if len(fields) == 8 and int(fields[3], 16) & 0x10000 and not others(fields[6]):
            yield fields[7], f"unix {fields[7]}"


def _holders() -> dict[str, set[str]]:
    """By what a descriptor is, the processes that have one."""
    found: dict[str, set[str]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            for descriptor in os.listdir(process / "fd"):
                with suppress(OSError):
                    target = os.readlink(process / "fd" / descriptor)
                    found.setdefault(target, set()).add(process.name)
    return found


def entries(folders: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if not any(path.match(name) for name in KEPT):
                yield str(path), str(path)


def containers() -> Iterator[tuple[str, str]]:
    """Containers of every engine that is here and answers."""
    for engine in ENGINES:
        if shutil.which(engine) is None:
            continue
        asked = [engine, "ps", "--all", "--format", "{{.ID}} {{.Image}} {{.Names}}"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        for line in done.stdout.splitlines() if done.returncode == 0 else ():
            yield f"{engine} {line.split()[0]}", f"{engine}: {line}"


def mounts() -> Iterator[tuple[str, str]]:
    for line in _lines(Path("/proc/self/mountinfo")):
        fields = line.split()
        yield f"{fields[0]} {fields[4]}", re.sub(r"\\040", " ", fields[4])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def run(
    command: list[str], folders: tuple[Path, ...] = FOLDERS
) -> tuple[int, dict[str, list[str]]]:
    """The command's exit status, and what it left behind, by kind."""
    # Orphans become this process's children, also those that cleared their environment.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    mark = uuid.uuid4().hex
    before = look(mark, folders)
    status = subprocess.run(command, env={**os.environ, MARK: mark}, check=False).returncode
    limit = time.monotonic() + SETTLE_S
    while True:
        _reap()
        left = {kind: new for kind, new in look(mark, folders).since(before).items() if new}
        if not left or time.monotonic() > limit:
            return status, left
        time.sleep(0.5)


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
    return status or bool(left)


if __name__ == "__main__":
    sys.exit(main())
