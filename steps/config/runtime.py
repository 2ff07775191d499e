"""How steps are run: by a native environment, or in a container of which engine and with what."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from steps.base.strict import Name, PositiveNumber, Strict

ContainerEngine = Literal["docker", "podman"]


def _absolute(path: str) -> str:
    if not PurePosixPath(path).is_absolute():
        raise ValueError("needs an absolute path")
    return path


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class EngineAddress(Strict):
    """A container engine: both speak Docker's API, each at a socket of its own.

    `engine`: which one. `socket`: its address.
    """

    engine: ContainerEngine
    socket: Annotated[str, Field(pattern=r"^unix:///\S+$")]


class ContainerSettings(EngineAddress):
    """What a container of a step is given.

    `shm_size_gb`: size of /dev/shm. `memory_gb`: its limit; None: no limit. `tmp_size_gb`: size of
    /tmp, in memory. `devices`: device files and folders that it sees. `groups`: groups of the
    machine that its user is in. `gpus`: asks NVIDIA's runtime for all of them; AMD's are `devices`.
    `capabilities`: Linux capabilities that it keeps. `security`: security options of the container
    engine. `mounts`: directories of the machine that steps read besides the checkout. `network`: of
    a step whose engines are all on this machine; those of several nodes share the machine's own.
    `start_limit_s`: how long the container engine may take to start it. `stop_limit_s`: how long it
    may take to stop. `nested`: the step makes namespaces of its own, for code that it doesn't
    trust, which the filter of system calls and the masked /proc of a container forbid.
    """

    shm_size_gb: PositiveNumber
    memory_gb: PositiveNumber | None = None
    tmp_size_gb: PositiveNumber
    devices: tuple[AbsolutePath, ...]
    groups: tuple[Name, ...]
    gpus: Literal["all"] | None = None
    capabilities: tuple[Name, ...]
    security: tuple[str, ...]
    mounts: tuple[AbsolutePath, ...]
    network: Literal["none", "host"]
    start_limit_s: PositiveNumber
    stop_limit_s: PositiveNumber
    nested: bool = False


class Runtime(ContainerSettings):
    """How steps are run.

    `name`: the file's. `native`: hardware that has a native environment uses it.
    """

    name: Name
    native: bool

    def address(self) -> dict[str, str]:
        """The engine's address, as an image's `host`."""
        return {"engine": self.engine, "socket": self.socket}

    def container(self, nodes: int) -> ContainerSettings:
        """What a step with engines on so many nodes runs in."""
        return self._settings({"network": "host"} if nodes > 1 else {})

    def judging(self) -> ContainerSettings:
        """What runs the code that a model wrote: with nothing of an accelerator."""
        nothing = {name: () for name in ("devices", "groups", "capabilities", "security")}
        return self._settings({**nothing, "gpus": None, "nested": True})

    def _settings(self, changes: Mapping[str, object]) -> ContainerSettings:
        fields = {name: getattr(self, name) for name in ContainerSettings.model_fields}
        return ContainerSettings.model_validate({**fields, **changes})
