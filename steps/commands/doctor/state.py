"""The machine's state for the checks, read once and never changed."""

import ctypes.util
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import Field

from steps.base.errors import UserError
from steps.base.strict import Strict
from steps.commands.doctor.needs import Needs
from steps.commands.doctor.settings import HostSetting, Settings
from steps.config.runtime import EngineAddress
from steps.machine.probes.machine import Prober, probe
from steps.machine.probes.values import Node
from steps.prepare.fetch.hub import Entry, may_read

ACCELERATOR_FILES = ("dev/kfd", "dev/dri/renderD*")
"""The files that a process opens to use an AMD accelerator."""


class Answer(Strict):
    """A container engine's version, or why runs can't use it."""

    version: str | None
    complaint: str


class State(Strict):
    """`host`: by path of the setting, the distinct values found; empty if the machine has none.

    `closed_files`: those of the accelerators that this user may not open. `taken_ports`: ports in
    use. `access`: to every repository that the plan needs. `engines`: by socket, a container
    engine's answer. `free_gb`: free space of the results' file system `mount`.
    """

    node: Node
    host: dict[str, tuple[str, ...]]
    closed_files: tuple[str, ...]
    free_gb: float
    mount: str
    taken_ports: tuple[int, ...]
    access: dict[str, Entry]
    numa_library: bool
    engines: dict[str, Answer] = Field(default_factory=dict)


def answer(address: EngineAddress) -> Answer:
    """Asked in the same way as by a run."""
    from steps.machine.runtime.host import connected, require_init

    try:
        with connected(address) as client:
            require_init(client, address)
            return Answer(version=str(client.version().get("Version", "")), complaint="")
    except UserError as error:
        return Answer(version=None, complaint=f"{error}")


def state(
    needs: Needs,
    settings: Settings,
    results: Path,
    *,
    environment: Mapping[str, str],
    prober: Prober | None = None,
    ask: Callable[[EngineAddress], Answer] = answer,
) -> State:
    """Read the parts of the machine that these needs concern."""
    asked = prober or Prober()
    mount = _existing(results)
    accelerated = bool(needs.accelerators)
    return State(
        node=probe(prober=asked),
        host={s.path: host_values(asked.root, s) for s in settings.host} if accelerated else {},
        closed_files=_closed(asked.root) if accelerated else (),
        free_gb=_free_gb(mount),
        mount=str(mount),
        taken_ports=tuple(filter(taken, settings.ray_ports)) if needs.nodes > 1 else (),
        access={
            one.name: may_read(one.endpoint, one.name, one.token, environment)
            for one in needs.repositories
        },
        engines={address.socket: ask(address) for address in needs.engines},
        numa_library=ctypes.util.find_library("numa") is not None,
    )


def host_values(root: Path, setting: HostSetting) -> tuple[str, ...]:
    """The kernel's value, each CPU's once; of several choices the one in brackets."""
    found = set()
    for path in root.glob(setting.path):
        try:
            text = path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        found.add(text.split("[")[1].split("]")[0] if "[" in text and "]" in text else text)
    return tuple(sorted(found))


def _closed(root: Path) -> tuple[str, ...]:
    paths = [path for pattern in ACCELERATOR_FILES for path in sorted(root.glob(pattern))]
    return tuple(f"/{p.relative_to(root)}" for p in paths if not os.access(p, os.R_OK | os.W_OK))


def _existing(path: Path) -> Path:
    """The path itself or the closest existing directory above it."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def _free_gb(path: Path) -> float:
    try:
        return shutil.disk_usage(path).free / 1e9
    except OSError as error:
        raise UserError(f"the disk of {path} can't be read ({error.strerror})") from error


def taken(port: int) -> bool:
    """Whether another process listens there, so this one couldn't."""
    with socket.socket() as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("", port))
        except OSError:
            return True
    return False
