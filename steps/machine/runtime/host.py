"""A container engine, and its errors as sentences."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound

from steps.base import processes
from steps.base.errors import UserError
from steps.config.runtime import EngineAddress

CALL_LIMIT_S = 60

START = {
    "docker": "systemctl start docker",
    "podman": "systemctl start podman.socket",
}

_UNREACHED = re.compile("timed out|refused|reset|aborted|broken|version:", re.IGNORECASE)
"""Parts of the SDK's message when it couldn't talk to the engine."""

_ERRORS = (
    *(DockerException, OSError, requests.exceptions.RequestException),
    urllib3.exceptions.HTTPError,  # of a stream that breaks off: the SDK reads it by itself
)

PYTHON = "/opt/reprise/bin/python"
"""The prefix of every image that is built from containers/."""

CHECKOUT, LAUNCHER = "org.reprise.checkout", "org.reprise.launcher"


def owned(root: Path) -> dict[str, str]:
    """Labels of a container: the checkout it runs for, and the process that waits for it."""
    return {CHECKOUT: str(root), LAUNCHER: processes.identity(os.getpid())}


@contextmanager
def connected(
    address: EngineAddress, limit_s: float = CALL_LIMIT_S
) -> Iterator[docker.DockerClient]:
    """A client of the engine. Raises UserError if it doesn't answer or refuses us.

    `limit_s`: the longest silence in a request inside the block. Its complaints there raise
    UserError too.
    """
    path = Path(address.socket.removeprefix("unix://"))
    if not path.exists():
        raise UserError(
            f"{address.engine} has no socket {path}; start it ({START[address.engine]}), or set "
            "runtime.socket"
        )
    try:
        client = docker.DockerClient(base_url=address.socket, timeout=CALL_LIMIT_S)
        try:
            client.ping()
            client.api.timeout = limit_s
            yield client
        finally:
            client.close()
    except _ERRORS as error:
        raise UserError(_sentence(address, path, error)) from error


def _sentence(address: EngineAddress, path: Path, error: Exception) -> str:
    text = " ".join(str(getattr(error, "explanation", None) or error).split())
    if "Permission denied" in text or "PermissionError" in text:
        return (
            f"{address.engine} refuses you at {path}: no permission; join its group "
            "(usermod -aG docker USER, then log in again), or set runtime.socket to your own"
        )
    if NO_INIT.search(text):
        return (
            f"{address.engine} has no init for containers ({text:.200}): install catatonit, or "
            "name another one (tini) as init_path below [engine] in /etc/containers/containers.conf"
        )
    if "no space left" in text.lower():
        return (
            f"{address.engine} has no space left ({text:.200}); free some with "
            f"{address.engine} system prune, or move its storage"
        )
    if not isinstance(error, APIError) and _UNREACHED.search(text):
        return (
            f"{address.engine} at {path} doesn't answer ({text:.200}); check whether it runs "
            f"({START[address.engine]}), and run again"
        )
    return f"{address.engine} says: {text:.400}"


NO_INIT = re.compile("init binary", re.IGNORECASE)
"""In what podman says of a container whose first process it can't find on its machine."""

TRIED = "reprise/no-init"


def require_init(client: docker.DockerClient, address: EngineAddress) -> None:
    """Raises UserError if the engine can't give containers a first process of its own (`--init`).

    Docker brings one along; podman takes another package's, and says that it is missing when a
    container is created. So an empty one is, and removed.
    """
    if address.engine != "podman":
        return
    text = b"FROM scratch\nLABEL org.reprise.tried=init\n"
    image, _ = client.images.build(fileobj=io.BytesIO(text), tag=TRIED, rm=True, forcerm=True)
    try:
        made = client.api.create_container(
            image.id, ["/none"], host_config=client.api.create_host_config(init=True)
        )
        client.api.remove_container(made["Id"])
    finally:
        client.images.remove(image.id, force=True)


def image_id(client: docker.DockerClient, name: str) -> str | None:
    """The attributes of an image on this machine; None if it isn't there. Nothing is pulled."""
    try:
        return str(client.images.get(name).id)
    except ImageNotFound:
        return None
