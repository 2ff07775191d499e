"""Hosts over SSH on this machine: a real sshd each, with a name and accelerators of its own.

Accelerators are what amd-smi says, and on these hosts it says what is recorded.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.programs import PATH, logs_of

RECORDED = ROOT / "tests/recorded"
LIMIT_S = 60


def unusable() -> str | None:
    """Why there can be no hosts here; None if there can."""
    if shutil.which("sshd", path=PATH) is None or shutil.which("ssh") is None:
        return "there is no sshd (apt-get install openssh-server)"
    if os.geteuid() != 0:
        return "only root gives each host a name of its own"
    return None


@dataclass(frozen=True)
class Host:
    """`model`: of its accelerators, None for none; `count`: how many its tools list; `driver`: of
    them, "" for the recorded one. `slow_s`: how long its tool takes. `taken`: how many of them
    somebody else has. `ahead_s`: of its clock, as Python programs read it. `disk_gb`: of a disk of
    its own for the checkout's results, 0 for none.
    """

    model: str | None
    count: int = 8
    driver: str = ""
    slow_s: int = 0
    taken: int = 0
    ahead_s: int = 0
    disk_gb: int = 0


def tools(home: Path, host: Host) -> str:
    """A PATH on which amd-smi lists the host's accelerators, and no other tool lists any."""
    home.mkdir(parents=True, exist_ok=True)
    listed = "exit 1"
    if host.model:
        recorded = json.loads((RECORDED / f"amd-smi-static-8x{host.model}.json").read_text())
        devices = recorded["gpu_data"] if isinstance(recorded, dict) else recorded
        del devices[host.count :]
        for device in devices:
            device["driver"]["version"] = host.driver or device["driver"]["version"]
        (home / "static.json").write_text(json.dumps(recorded), encoding="utf-8")
        used = [{"mem_usage": {"used_vram": 90000 if n < host.taken else 283}} for n in range(8)]
        (home / "metric.json").write_text(json.dumps(used[: host.count]), encoding="utf-8")
        listed = f'sleep {host.slow_s}; cat {shlex.quote(str(home))}/"$1".json'
    for name, text in {"amd-smi": listed, "rocm-smi": "exit 1"}.items():
        (home / name).write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
        (home / name).chmod(0o755)
    return f"{home}{os.pathsep}{os.environ['PATH']}"


def clock(home: Path, host: Host) -> str:
    """A variable for sshd by which Python's clock is ahead; "" for one that is right."""
    if not host.ahead_s:
        return ""
    (home / "sitecustomize.py").write_text(
        f"import time\nright = time.time\ntime.time = lambda: right() + {host.ahead_s}\n",
        encoding="ascii",
    )
    return f" PYTHONPATH={home}"


def disk(host: Host) -> str:
    """The command that mounts a disk of the host's own."""
    if not host.disk_gb:
        return ""
    (ROOT / "results").mkdir(exist_ok=True)
    return f"mount -t tmpfs -o size={host.disk_gb}g none {shlex.quote(str(ROOT / 'results'))} &&"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def serving(
    home: Path, hosts: Mapping[str, Host], nobody: Sequence[str] = ()
) -> Iterator[dict[str, str]]:
    """An environment whose ssh knows these hosts, and those where nobody listens."""
    sshd = shutil.which("sshd", path=PATH)
    Path("/run/sshd").mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    for key in ("host", "user"):
        making = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / key)]
        subprocess.run(making, check=True)
    shutil.copy(home / "user.pub", home / "authorized")
    lines: list[str] = []
    started: list[subprocess.Popen[bytes]] = []
    ports = {name: free_port() for name in (*hosts, *nobody)}
    for name, port in ports.items():
        lines += [f"Host {name}", f"  Port {port}"]
    for name, host in hosts.items():
        options = {
            "ListenAddress": "127.0.0.1",
            "Port": ports[name],
            "HostKey": home / "host",
            "AuthorizedKeysFile": home / "authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "MaxStartups": "100",
            "SetEnv": f"PATH={tools(home / name, host)}{clock(home / name, host)}",
        }
        (home / f"{name}.conf").write_text(
            "".join(f"{key} {value}\n" for key, value in options.items()), encoding="utf-8"
        )
        configured = shlex.quote(str(home / f"{name}.conf"))
        # An alias of a host is the same machine: what is before a dot.
        serve = (
            f"hostname {name.partition('.')[0]} && {disk(host)} exec {sshd} -D -e -f {configured}"
        )
        with (logs_of("sshd", home) / f"{name}.log").open("wb") as stream:
            apart = ["unshare", "--uts", *(["--mount"] if host.disk_gb else []), "sh", "-c", serve]
            started.append(subprocess.Popen(apart, stderr=stream))
    lines += ["Host *", "  HostName 127.0.0.1", "  StrictHostKeyChecking no"]
    lines += [f"  IdentityFile {home / 'user'}", f"  UserKnownHostsFile {home / 'known'}"]
    (home / "config").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (home / "bin").mkdir()
    client = home / "bin/ssh"
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {home}/config "$@"\n')
    client.chmod(0o755)
    try:
        for name in hosts:
            _wait_for(ports[name])
        yield {"PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    finally:
        for process in started:
            process.terminate()
            process.wait(LIMIT_S)


def _wait_for(port: int) -> None:
    limit = time.monotonic() + LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < limit, f"no sshd listens at {port}"
            time.sleep(0.05)
