"""Services that tests of the real parts need, of Debian's packages: installed, started, stopped.

What runs already on the machine is used and left as it is. Slurm, sshd and Chromium are only
installed here: the tests that need them start and stop their own.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.programs import PATH

PACKAGES = (
    *("docker.io", "podman", "catatonit", "mmdebstrap", "iptables"),
    *("slurm-wlm", "munge", "openssh-server", "openssh-client"),
    *("chromium", "chromium-driver", "zsh", "libnuma1"),
)
"""One program of each tells whether a package is there already: see PROGRAMS."""

PROGRAMS = {
    "docker.io": "dockerd",
    "podman": "podman",
    "catatonit": "catatonit",
    "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
    "slurm-wlm": "slurmctld",
    "munge": "munged",
    "openssh-server": "sshd",
    "openssh-client": "ssh-keygen",
    "chromium": "chromium",
    "chromium-driver": "chromedriver",
    "zsh": "zsh",
}

POLICY = Path("/usr/sbin/policy-rc.d")
"""Debian's answer to whether a package may start its service; absent, it may."""

ENGINES = ("docker", "podman")
PODMAN = Path("/run/podman/podman.sock")
START_LIMIT_S, STOP_LIMIT_S, INSTALL_LIMIT_S = 60, 30, 1200

LIMITS = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
"""
"""Podman asks for more than the machine may have allowed, and then starts no container."""


def which(program: str) -> str | None:
    return shutil.which(program, path=PATH)


def absent() -> list[str]:
    """Packages of which the program isn't there."""
    return [
        name
        for name in PACKAGES
        if (which(PROGRAMS[name]) is None if name in PROGRAMS else not _installed(name))
    ]


def _installed(package: str) -> bool:
    asked = ["dpkg-query", "--show", "--showformat", "${Status}", package]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return "install ok installed" in done.stdout


def install() -> None:
    """What is absent, without starting any service. Needs root."""
    wanted = absent()
    if not wanted:
        return
    if os.geteuid() != 0:
        sys.exit(f"error: only root installs {' '.join(wanted)}; run make test-real as root")
    print(f"installing {' '.join(wanted)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": PATH}
    apt = ["apt-get", "--quiet", "--yes", "--no-install-recommends"]
    with _no_service_starts():
        for command in (["update"], ["install", *wanted]):
            subprocess.run(
                [*apt, *command],
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=INSTALL_LIMIT_S,
            )


@contextmanager
def _no_service_starts() -> Iterator[None]:
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


@contextmanager
def running(logs: Path) -> Iterator[None]:
    """Docker and podman serve their sockets; each writes its log into a folder."""
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(docker(logs))
        stack.enter_context(podman(logs))
        yield


@contextmanager
def docker(logs: Path) -> Iterator[None]:
    if _answers("docker"):
        yield
        return
    with _service(["dockerd"], logs / "dockerd.log", lambda: _answers("docker")):
        yield


@contextmanager
def podman(logs: Path) -> Iterator[None]:
    if PODMAN.exists() and _serves(PODMAN):
        yield
        return
    PODMAN.parent.mkdir(parents=True, exist_ok=True)
    PODMAN.unlink(missing_ok=True)
    settings = logs / "containers.conf"
    settings.write_text(LIMITS.format(files=_limit("-n"), processes=_limit("-u")))
    command = ["podman", "system", "service", "--time=0", f"unix://{PODMAN}"]
    environment = {"CONTAINERS_CONF": str(settings)}
    with _service(command, logs / "podman.log", lambda: _serves(PODMAN), environment):
        yield
    PODMAN.unlink(missing_ok=True)


def _limit(which_one: str) -> int:
    """The hard limit of this user's files or processes, below what podman takes for endless."""
    shown = subprocess.run(
        ["sh", "-c", f"ulimit -H {which_one}"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return min(int(shown), 1 << 20) if shown.isdigit() else 10_000


@contextmanager
def _service(
    command: list[str],
    log: Path,
    ready: Callable[[], bool],
    environment: dict[str, str] | None = None,
) -> Iterator[None]:
    """A daemon in a session of its own, until the end of this block."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": PATH, **(environment or {})},
            start_new_session=True,
        )
    try:
        limit = time.monotonic() + START_LIMIT_S
        while not ready():
            if process.poll() is not None or time.monotonic() > limit:
                text = log.read_text(errors="replace")[-2000:]
                sys.exit(f"error: {command[0]} doesn't start; the end of {log}:\n{text}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(engine: str) -> bool:
    if which(engine) is None:
        return False
    asked = [str(which(engine)), "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def _serves(path: Path) -> bool:
    """Whether somebody listens at a socket's path."""
    import socket

    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
