"""Builds without a network: pip reaches only a directory of wheels.

A build mounts nothing, and wheels that were copied into it would stay in a layer. So a container
with nothing but a loopback network serves them, and the build shares it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker

from steps import ROOT
from steps.base.errors import UserError
from steps.config.runtime import ContainerEngine
from steps.machine.runtime.host import owned

PORT = 8000
START_LIMIT_S = 30

_ANSWERS = f"""
import socket, time
until = time.monotonic() + {START_LIMIT_S}
while time.monotonic() < until:
    try:
        socket.create_connection(("127.0.0.1", {PORT}), 1).close()
        raise SystemExit(0)
    except OSError:
        time.sleep(0.05)
raise SystemExit(1)
"""


@dataclass(frozen=True)
class Reached:
    """Settings of a build; `network` None means the engine's own.

    `parameters` are podman's additions to Docker's API: podman (4.3) ignores "container:ID" as a
    network, but takes a namespace by its path.
    """

    network: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def reached(
    client: docker.DockerClient, engine: ContainerEngine, folder: Path, base: str
) -> Iterator[Reached]:
    """Build with the wheels of `folder` if it exists, else from the network.

    Raises UserError for a base that can't serve them.
    """
    if not folder.is_dir():
        yield Reached()
        return
    server = client.containers.run(
        base,
        ["-m", "http.server", str(PORT), "--bind", "127.0.0.1", "--directory", "/wheels"],
        entrypoint=["python3"],
        volumes={str(folder.resolve()): {"bind": "/wheels", "mode": "ro"}},
        labels=owned(ROOT),
        network_mode="none",
        cap_drop=["ALL"],
        detach=True,
    )
    try:
        if server.exec_run(["python3", "-c", _ANSWERS]).exit_code:
            raise UserError(
                f"the base {base:.19} can't serve the wheels of {folder}: its python3 "
                f"doesn't answer within {START_LIMIT_S} s"
            )
        links = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"http://127.0.0.1:{PORT}/"}
        if engine == "docker":
            yield Reached(f"container:{server.id}", {}, links)
        else:
            server.reload()
            path = f"/proc/{server.attrs['State']['Pid']}/ns/net"
            namespace = {"Name": "network", "Host": False, "Path": path}
            yield Reached(None, {"nsoptions": json.dumps([namespace])}, links)
    finally:
        server.remove(force=True)
