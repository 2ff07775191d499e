"""`python -m steps.machine.runtime IMAGE SETTINGS [arguments of python]`: Python in a container.

IMAGE is the manifest of a container step, or the JSON of an Image where that step didn't run on
this machine; SETTINGS the JSON of a ContainerSettings. The exit status is the command's own.
"""

import contextlib
import os
import platform
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest

from steps import ROOT
from steps.base import processes
from steps.base.deaths import kept, sentence, signal_of
from steps.base.errors import UserError, shown
from steps.base.processes import ENDS, STOPPED_S
from steps.base.record import Manifest
from steps.config.runtime import ContainerSettings
from steps.machine.runtime import mounts
from steps.machine.runtime.host import CHECKOUT, LAUNCHER, connected, image_id, owned
from steps.machine.runtime.image import Image

WATCH_S = 1.0

OUTPUT = "org.reprise.output"
"""Label of a container: what it makes."""

GB = 1 << 30


def main(arguments: list[str]) -> int:
    processes.die_with_parent(signal.SIGTERM)
    named, settings, *command = arguments
    try:
        image = _image(named)
        return launch(image, ContainerSettings.model_validate_json(settings), command)
    except UserError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 1


def _image(named: str) -> Image:
    if named.startswith("{"):
        return Image.model_validate_json(named)
    return Image.of(Manifest.read(Path(named)))


def launch(image: Image, settings: ContainerSettings, command: list[str]) -> int:
    """Start the container, pass on what it prints, wait for its end; signals stop it.

    Raises UserError for an engine or image that isn't there and a container that doesn't start.
    """
    output = _after(command, "--output")
    with connected(settings, settings.start_limit_s) as client:
        if image_id(client, image.identity) is None:
            raise UserError(
                f"image {image.identity:.19} is no longer in {settings.engine}; delete "
                f"{image.made} and run again, which builds it"
            )
        _sweep(client, output)
        container = _create(client, image, settings, command, output)
        try:
            return _attend(client, container, settings, command)
        finally:
            _remove(container)


def _create(
    client: docker.DockerClient,
    image: Image,
    settings: ContainerSettings,
    command: list[str],
    output: str,
) -> Container:
    (ROOT / "results").mkdir(exist_ok=True)
    volumes = mounts.of_step(ROOT, settings.mounts)
    host = client.api.create_host_config(
        binds=volumes,
        init=True,
        read_only=True,
        tmpfs={"/tmp": f"exec,size={int(settings.tmp_size_gb * GB)}"},
        shm_size=int(settings.shm_size_gb * GB),
        mem_limit=int(settings.memory_gb * GB) if settings.memory_gb else None,
        network_mode=settings.network,
        devices=[f"{device}:{device}" for device in settings.devices],
        device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])] if settings.gpus else [],
        group_add=list(settings.groups),
        cap_drop=["ALL"],
        cap_add=[*settings.capabilities, *_nested_capabilities(settings)],
        security_opt=["no-new-privileges", *settings.security, *_nested_security(settings)],
    )
    if settings.nested:
        host |= {"MaskedPaths": [], "ReadonlyPaths": []}
    made = client.api.create_container(
        image.identity,
        command,
        entrypoint=[image.python],
        working_dir=str(ROOT),
        volumes=list(volumes),
        user=f"{os.getuid()}:{os.getgid()}",
        # Libraries ask for the user's name and home, and this user is not of the image.
        environment={"HOME": "/tmp", "USER": "reprise", "PYTHONDONTWRITEBYTECODE": "1"},
        hostname=platform.node(),
        labels={**owned(ROOT), OUTPUT: output},
        tty=sys.stderr.isatty(),
        host_config=host,
    )
    return client.containers.get(made["Id"])


def _nested_security(settings: ContainerSettings) -> list[str]:
    if not settings.nested:
        return []
    # Docker takes paths to mask, and podman this.
    return ["seccomp=unconfined", *(["unmask=ALL"] if settings.engine == "podman" else [])]


def _nested_capabilities(settings: ContainerSettings) -> list[str]:
    """Root drops its rights before it makes a sandbox, which needs these."""
    return ["SETUID", "SETGID"] if settings.nested and os.getuid() == 0 else []


def _attend(
    client: docker.DockerClient,
    container: Container,
    settings: ContainerSettings,
    command: list[str],
) -> int:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for further in ENDS:  # a second one would break this off
            signal.signal(further, signal.SIG_IGN)
        # The step removes what it has not finished when it is told to end.
        container.stop(timeout=int(settings.stop_limit_s))
        raise SystemExit(128 + number)

    for ending in ENDS:
        signal.signal(ending, stop)
    stream = container.attach(stream=True, logs=True)
    container.start()
    # The stream's reads have no limit, as a run may be silent for long; requests keep theirs.
    still = threading.Event()
    threading.Thread(target=_watch, args=(container, still), daemon=True).start()
    for chunk in stream:
        sys.stderr.buffer.write(chunk)
        sys.stderr.flush()
    ended = container.wait()
    status = int(ended["StatusCode"])
    if still.is_set():
        raise UserError(
            f"{_label(command)} has been stopped for {STOPPED_S:.0f} s (SIGSTOP) and is ended; "
            f"log: {_after(command, '--log')}; {kept(Path(_after(command, '--output')).parent)}"
        )
    if (number := signal_of(status)) is not None:
        raise UserError(_death(container, settings, command, number))
    return status


def _watch(container: Container, still: threading.Event) -> None:
    """`_end_stopped`, until the container is gone or its engine doesn't answer; `_attend` hears of
    that too, and reports it.
    """
    with contextlib.suppress(DockerException, requests.exceptions.RequestException):
        _end_stopped(container, still)


def _end_stopped(container: Container, still: threading.Event) -> None:
    """End the container of a stopped step, which would otherwise be waited for without limit.

    Its processes are visible if they run on this machine.
    """
    container.reload()
    init = int(container.attrs.get("State", {}).get("Pid") or 0)
    since = time.monotonic()
    while init and processes.state(init) not in processes.GONE:
        found = [processes.state(pid) for pid in processes.children(init)]
        if processes.STOPPED not in found:
            since = time.monotonic()
        elif time.monotonic() - since > STOPPED_S:
            still.set()
            container.kill()
            return
        time.sleep(WATCH_S)


def _after(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def _label(command: list[str]) -> str:
    return f"{_after(command, '-m').rpartition('.')[2]} in its container"


def _death(
    container: Container, settings: ContainerSettings, command: list[str], number: signal.Signals
) -> str:
    """What ended the step in it, which couldn't report it itself."""
    container.reload()
    limit = f"its limit is {settings.memory_gb} GB; " if settings.memory_gb else ""
    memory = f"most likely the kernel, out of memory; {limit}free some, or raise runtime.memory_gb"
    if container.attrs.get("State", {}).get("OOMKilled"):
        memory = (
            f"{settings.engine} says that the kernel ended it, out of memory; {limit}free "
            "some, or raise runtime.memory_gb"
        )
    left = kept(Path(_after(command, "--output")).parent)
    return sentence(_label(command), number, _after(command, "--log"), memory, left)


def _sweep(client: docker.DockerClient, output: str) -> None:
    """Remove what killed launchers left running: it would write into our output, or occupy GPUs."""
    for found in client.containers.list(all=True, filters={"label": f"{CHECKOUT}={ROOT}"}):
        launcher = found.labels.get(LAUNCHER, "")
        number = launcher.partition("-")[0]
        waits = number.isdecimal() and processes.identity(int(number)) == launcher
        if found.labels.get(OUTPUT) == output or not waits:
            _remove(found)


def _remove(container: Container) -> None:
    try:
        container.remove(force=True)
    except NotFound:
        pass
    except APIError as error:
        if "already in progress" not in str(error):
            raise


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
