"""Generated code runs here and nowhere else: no network, no files of the machine, hard limits.

The walls are bubblewrap's (namespaces of users, mounts, processes and network, no capabilities);
the limits are the kernel's, set by util-linux's prlimit inside them.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steps.base.errors import UserError

MIB = 1 << 20
DISK_BYTES = 64 * MIB
"""Of /work and of /tmp, each in memory and gone with the sandbox."""

MEMORY_BYTES = 512 * MIB
"""Of one process: its writable private memory. An address space can't be limited: V8 reserves
hundreds of GB of it."""

FILE_BYTES = 32 * MIB
PROCESSES = 32
GRACE_S = 10.0
"""Beyond a program's own limits, for the sandbox itself."""

NOBODY = 65534
PATH = "/usr/local/bin:/usr/bin:/bin"
USED_BY_THE_SYSTEM = ("/etc/alternatives", "/etc/ld.so.cache")
"""What programs below /usr need outside of it, where it is there."""

PROBE_LIMIT_S = 20.0


@dataclass(frozen=True)
class Sandbox:
    """`bwrap` is the path of bubblewrap's program, tried by `find`."""

    bwrap: str

    @classmethod
    def find(cls) -> "Sandbox":
        """Raises UserError, with bubblewrap's own words, if code can't be shut in here."""
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise UserError(
                "generated code is only run in a sandbox, and there is none: install bubblewrap "
                "(apt-get install bubblewrap)"
            )
        sandbox = cls(bwrap)
        try:
            done = sandbox._run("true", {}, PROBE_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{bwrap} did not answer within {PROBE_LIMIT_S:g} s") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise UserError(
                "generated code is only run in a sandbox, and bubblewrap can't make one here "
                f"({said[-1] if said else done.returncode}); allow user namespaces or run it where "
                "they are allowed"
            )
        return sandbox

    def run(self, script: str, files: Mapping[str, str], limit_s: float) -> int | None:
        """Exit status of a shell script in a directory with these files; None if it had no time.

        `script` is of this program's own making; what is not trusted belongs into `files`.
        """
        try:
            return self._run(script, files, limit_s + GRACE_S).returncode
        except subprocess.TimeoutExpired:
            return None  # subprocess killed bwrap, and with it all that it held

    def _run(
        self, script: str, files: Mapping[str, str], limit_s: float
    ) -> "subprocess.CompletedProcess[bytes]":
        handles = {name: _in_memory(name, text) for name, text in files.items()}
        # As root the kernel doesn't count processes, so root gives itself up first.
        user: dict[str, Any] = (
            {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        try:
            return subprocess.run(
                [self.bwrap, *_walls(handles), *_limits(), "/bin/sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE if not files else subprocess.DEVNULL,
                pass_fds=tuple(handles.values()),
                cwd="/",
                timeout=limit_s,
                check=False,
                **user,
            )
        except OSError as error:
            raise UserError(f"{self.bwrap} can't be run ({error.strerror})") from error
        finally:
            for handle in handles.values():
                os.close(handle)


def _in_memory(name: str, text: str) -> int:
    handle = os.memfd_create(name)
    with os.fdopen(os.dup(handle), "wb") as stream:
        stream.write(text.encode("utf-8", "replace"))
        stream.seek(0)
    return handle


def _walls(handles: Mapping[str, int]) -> list[str]:
    arguments = ["--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    arguments += ["--die-with-parent", "--new-session", "--clearenv"]
    arguments += ["--setenv", "PATH", PATH, "--setenv", "HOME", "/work"]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib64"):
        arguments += ["--symlink", f"usr/{name}", f"/{name}"]
    for path in USED_BY_THE_SYSTEM:
        arguments += ["--ro-bind-try", path, path]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for path in ("/tmp", "/work"):
        arguments += ["--size", str(DISK_BYTES), "--tmpfs", path]
    for name, handle in handles.items():
        arguments += ["--file", str(handle), f"/work/{name}"]
    return [*arguments, "--remount-ro", "/", "--chdir", "/work", "--"]


def _limits() -> list[str]:
    return [
        *("/usr/bin/prlimit", f"--nproc={PROCESSES}", f"--data={MEMORY_BYTES}"),
        *(f"--fsize={FILE_BYTES}", "--core=0"),
    ]
