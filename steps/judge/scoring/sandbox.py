"""Generated code runs here and nowhere else: no network, no files of the machine, hard limits.

The isolation is bubblewrap's (namespaces of users, mounts, processes and network, no capabilities,
a filter of system calls); the limits of a process are the kernel's, set by util-linux's prlimit
inside them. All processes together are watched from outside: a systemd scope would need a session,
which jobs of schedulers and containers lack.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.base import processes
from steps.base.errors import UserError
from steps.config.languages import PATH
from steps.judge.scoring.system_calls import filter_of

MIB = 1 << 20
DISK_BYTES = 64 * MIB
"""The size of /work, /tmp and /dev/shm, each in memory and removed with the sandbox."""

MEMORY_BYTES = 512 * MIB
"""The limit of one process's writable private memory. An address space can't be limited: V8
reserves hundreds of GB of it.
"""

TREE_BYTES = 1024 * MIB
"""The limit of all processes of a sandbox together, checked every WATCH_S; what they allocate
within that time comes on top.
"""

WATCH_S = 0.05
FILES = 8192
"""The limit of all processes together: an empty file takes a kilobyte of the kernel's memory."""

FILE_BYTES = 32 * MIB
PROCESSES = 32
OPEN_FILES = 128
"""The limit of one process: pipes and sockets take the kernel's memory."""

GRACE_S = 10.0
"""Added to a program's own limits, for the sandbox itself."""

NOBODY = 65534
WRITABLE = ("/work", "/tmp", "/dev/shm")
DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")
USED_BY_THE_SYSTEM = ("/etc/alternatives", "/etc/ld.so.cache")
"""Paths outside of /usr that programs below it need, if they exist."""

PROBE_LIMIT_S = 20.0


@dataclass(frozen=True)
class Sandbox:
    """`bwrap` is the path of bubblewrap's program, which `find` has tried."""

    bwrap: str

    @classmethod
    def find(cls) -> "Sandbox":
        """Raises UserError, with bubblewrap's message, if it can't isolate code here."""
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise UserError(
                "generated code is only run in a sandbox, and there is none: install bubblewrap "
                "(apt-get install bubblewrap)"
            )
        sandbox = cls(bwrap)
        try:
            done = sandbox._run("true", {}, PROBE_LIMIT_S)
        except _Exceeded as error:
            raise UserError(f"{bwrap} did not answer within {PROBE_LIMIT_S:g} s") from error
        if done.status:
            said = done.said.decode("utf-8", "replace").strip().splitlines()
            raise UserError(
                "generated code is only run in a sandbox, and bubblewrap can't make one here "
                f"({said[-1] if said else done.status}); allow user namespaces or run it where "
                "they are allowed"
            )
        return sandbox

    def run(self, script: str, files: Mapping[str, str], limit_s: float) -> int | None:
        """Exit status of a shell script in a directory with these files; None if it was ended.

        It is ended when its time is over, or when all its processes together use more than
        TREE_BYTES or make more than FILES. `script` is this program's own; untrusted content
        belongs into `files`.
        """
        try:
            return self._run(script, files, limit_s + GRACE_S).status
        except _Exceeded:
            return None

    def _run(self, script: str, files: Mapping[str, str], limit_s: float) -> "_Done":
        handles = {
            name: _in_memory(name, text.encode("utf-8", "replace")) for name, text in files.items()
        }
        refused = filter_of()
        seccomp = None if refused is None else _in_memory("seccomp", refused)
        kept = [*handles.values(), *([] if seccomp is None else [seccomp])]
        # As root the kernel doesn't count processes, so root gives itself up first.
        user: dict[str, Any] = (
            {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        try:
            with subprocess.Popen(
                [self.bwrap, *_walls(handles, seccomp), *_limits(), "/bin/sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE if not files else subprocess.DEVNULL,
                pass_fds=tuple(kept),
                cwd="/",
                # bubblewrap is a process of the sandbox, where anybody may read what it was given.
                env={"PATH": PATH},
                **user,
            ) as process:
                return _watched(process, limit_s)
        except OSError as error:
            raise UserError(f"{self.bwrap} can't be run ({error.strerror})") from error
        finally:
            for handle in kept:
                os.close(handle)


@dataclass(frozen=True)
class _Done:
    """How bubblewrap ended, and its output when no foreign code runs."""

    status: int
    said: bytes


class _Exceeded(Exception):
    """More time or memory than a sandbox has."""


def _watched(process: "subprocess.Popen[bytes]", limit_s: float) -> _Done:
    """Raises _Exceeded when the limit is used up."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            _, said = process.communicate(timeout=WATCH_S)
            return _Done(process.returncode, said or b"")
        except subprocess.TimeoutExpired:
            held = [process.pid, *processes.below(process.pid)]
            fits = sum(map(_own_bytes, held)) < TREE_BYTES and _files_of(held) < FILES
            if time.monotonic() < deadline and fits:
                continue
            process.kill()  # and with bubblewrap all that it holds
            process.communicate()
            raise _Exceeded from None


def _files_of(pids: Iterable[int]) -> int:
    """Files in the writable places, as seen by the first process inside."""
    for pid in pids:
        try:
            found = [os.statvfs(f"/proc/{pid}/root{place}") for place in WRITABLE]
        except OSError:
            continue  # it has just ended, or we may not look
        # Of bubblewrap's own processes, outside or not yet inside, they are the machine's.
        if all(place.f_blocks * place.f_frsize == DISK_BYTES for place in found):
            return sum(place.f_files - place.f_ffree for place in found)
    return 0


def _own_bytes(pid: int) -> int:
    """A process's memory that is private or shared without a file."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    found = (
        line.split() for line in text.splitlines() if line.startswith(("RssAnon:", "RssShmem:"))
    )
    return sum(int(kilobytes) << 10 for _, kilobytes, _ in found)


def _in_memory(name: str, data: bytes) -> int:
    handle = os.memfd_create(name)
    with os.fdopen(os.dup(handle), "wb") as stream:
        stream.write(data)
        stream.seek(0)
    return handle


def _walls(handles: Mapping[str, int], seccomp: int | None) -> list[str]:
    arguments = ["--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    arguments += ["--die-with-parent", "--new-session", "--clearenv"]
    arguments += [] if seccomp is None else ["--seccomp", str(seccomp)]
    arguments += ["--setenv", "PATH", PATH, "--setenv", "HOME", "/work"]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib64"):
        arguments += ["--symlink", f"usr/{name}", f"/{name}"]
    for path in USED_BY_THE_SYSTEM:
        arguments += ["--ro-bind-try", path, path]
    arguments += ["--proc", "/proc", *_devices()]
    for path in WRITABLE:
        arguments += ["--size", str(DISK_BYTES), "--tmpfs", path]
    for name, handle in handles.items():
        arguments += ["--file", str(handle), f"/work/{name}"]
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/work", "--"]


def _devices() -> list[str]:
    """bubblewrap's own --dev also has /dev/zero, whose shared mappings are memory without limit."""
    arguments = ["--size", str(MIB), "--tmpfs", "/dev"]
    for path in DEVICES:
        arguments += ["--dev-bind", path, path]
    arguments += ["--symlink", "/proc/self/fd", "/dev/fd"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        arguments += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    return arguments


def _limits() -> list[str]:
    return [
        *("/usr/bin/prlimit", f"--nproc={PROCESSES}", f"--data={MEMORY_BYTES}"),
        *(f"--fsize={FILE_BYTES}", f"--nofile={OPEN_FILES}", "--core=0", "--memlock=0"),
    ]
