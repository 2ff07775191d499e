"""A run's accelerators: whether a node has those that the system names, where they are in the
machine, and which of them a process got.
"""

import ctypes
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.config.accelerators import Vendor
from steps.config.engine import Placement
from steps.machine.probes.accelerators import bus_address
from steps.machine.probes.differs import listing, unfit
from steps.machine.probes.machine import DEVICE_CLASSES, Prober, of_vendor
from steps.machine.probes.values import Accelerator
from steps.run.engines import watched
from steps.run.engines.watched import MAPS

TOPOLOGY = "sys/class/kfd/kfd/topology/nodes"
PCI = "sys/bus/pci/devices"
NVIDIA = "0x10de"
ADDRESS_BYTES = 64


TAKEN_MIB = 4096
"""An accelerator with more memory in use is somebody's: an idle one has some 300 MiB in use."""

NAMES_USERS: Mapping[Vendor, str] = {"AMD": "amd-smi process", "NVIDIA": "nvidia-smi"}
"""The command that lists processes with an accelerator's memory."""

FREED_S = 20.0
"""How long the memory of a process that has just ended may take to be free."""

ASKED_AGAIN_S = 2.0


def require(
    placement: Placement,
    prober: Prober | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Accelerator, ...]:
    """This machine's accelerators as its vendor's tool lists them; none if the run needs none.

    Raises UserError unless they are what the run's system names, and free. Those of other nodes are
    asked for there (steps/run/placing/nodes.py).
    """
    limit = clock() + FREED_S
    while True:
        found = _named(placement, prober)
        said = taken(found)
        if not said:
            return found
        if clock() >= limit:
            raise UserError(f"{said}; nothing was measured")
        sleep(ASKED_AGAIN_S)


def taken(found: Sequence[Accelerator]) -> str:
    """A sentence about those of which something else has memory in use; "" if all are free."""
    held = [one for one in found if (one.used_mib or 0) > TAKEN_MIB]
    if not held:
        return ""
    shown = ", ".join(f"{one.bus or one.model} ({one.used_mib} MiB)" for one in held)
    return (
        f"something else has memory of {len(held)} of {len(found)} accelerators in use: {shown}; "
        f"end it ({NAMES_USERS[held[0].vendor]} names it)"
    )


def _named(placement: Placement, prober: Prober | None) -> tuple[Accelerator, ...]:
    found, why = listed(placement, prober)
    if why:
        (kind,) = placement.kinds
        raise UserError(
            f"the run is planned for {kind.accelerator.count_per_node} × {kind.accelerator.model} "
            f"(hardware {kind.hardware}), but on this machine {why}; nothing was measured"
        )
    return found


def listed(
    placement: Placement, prober: Prober | None = None
) -> tuple[tuple[Accelerator, ...], str]:
    """The same, and why they aren't what the run's system names; "" if they are. Never raises: a
    tool that fails after a run costs no result.
    """
    if not placement.kinds or placement.cluster != "none":
        return (), ""
    (kind,) = placement.kinds
    asked = prober or Prober()
    found = of_vendor(kind.accelerator.vendor, asked)
    why = unfit(kind.accelerator, kind.modes, found)
    if not found:
        why = next(iter(asked.problems), why)
    return found, why or ""


def summary(found: Sequence[Accelerator]) -> dict[str, Any]:
    """For the result: what they are, each value once where all agree."""
    names = ("architecture", "driver", "memory_mib")
    values = {name: _alike(found, name) for name in names}
    return {"listed": listing(found), **values, "bus": [one.bus for one in found]}


CLOCKS = ("performance_level", "max_clock_mhz", "soc_pstate", "power_cap_w")
MODES = ("compute_partition", "memory_partition")


def settings(found: Sequence[Accelerator]) -> dict[str, Any]:
    """What they are set to, each value once where all agree; what no tool says is left out."""
    values = {name: _alike(found, name) for name in (*CLOCKS, *MODES)}
    return {name: value for name, value in values.items() if value is not None}


def _alike(found: Sequence[Accelerator], name: str) -> Any:
    distinct = list(dict.fromkeys(getattr(one, name) for one in found))
    return distinct[0] if len(distinct) == 1 else distinct


# ---- where they are ------------------------------------------------------------------------------


def addresses(variable: str, root: Path) -> list[str]:
    """The bus address of every accelerator, in the order in which `variable` counts them.

    AMD's runtime counts the nodes of the kernel's topology that compute; CUDA counts by
    address where order() is set. Empty where the kernel doesn't say.
    """
    return _cuda(root) if variable.startswith("CUDA") else _rocm(root)


def order(variable: str) -> dict[str, str]:
    """What else has to be set for `variable` to count as `addresses` does."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if variable.startswith("CUDA") else {}


def numa_nodes(variable: str, root: Path) -> list[int | None]:
    """The NUMA node of each accelerator, in the same order; None where the kernel doesn't say."""
    return [_numa_node(address, root) for address in addresses(variable, root)]


def _rocm(root: Path) -> list[str]:
    found = []
    nodes = [path for path in (root / TOPOLOGY).glob("*") if path.name.isdecimal()]
    for path in sorted(nodes, key=lambda path: int(path.name)):
        lines = [line.split() for line in _text(path / "properties").splitlines()]
        said = {words[0]: int(words[1]) for words in lines if len(words) == 2}
        if said.get("simd_count"):
            place = said.get("location_id", 0)
            found.append(
                f"{said.get('domain', 0):04x}:{place >> 8 & 0xFF:02x}:"
                f"{place >> 3 & 0x1F:02x}.{place & 7}"
            )
    return found


def _cuda(root: Path) -> list[str]:
    return [
        path.name
        for path in sorted((root / PCI).glob("*"))
        if _text(path / "vendor") == NVIDIA
        # Its own VGA is an accelerator too, where it is NVIDIA's.
        and _text(path / "class").startswith((*DEVICE_CLASSES, "0x0300"))
    ]


def _numa_node(address: str, root: Path) -> int | None:
    """Partitions of a card are functions that the bus may not have: the card's is theirs."""
    whole = f"{address.rpartition('.')[0]}.0"
    for name in (address, whole):
        if (text := _text(root / PCI / name / "numa_node")).isdecimal():
            return int(text)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


# ---- which of them this process got --------------------------------------------------------------


def got(maps: Path = MAPS, load: Callable[[str], Any] = ctypes.CDLL) -> tuple[str, ...]:
    """The bus addresses of the accelerators that this process sees, by the runtime that it has
    loaded: AMD's HIP or NVIDIA's driver. Empty if it has loaded neither.
    """
    for path in sorted(watched.loaded_libraries(maps)):
        name = path.rpartition("/")[2]
        if name.startswith("libamdhip64"):
            return _by_hip(load(path))
        if name.startswith("libcuda.so"):
            return _by_cuda(load(path))
    return ()


def _by_hip(library: Any) -> tuple[str, ...]:
    count = ctypes.c_int(0)
    if library.hipGetDeviceCount(ctypes.byref(count)):
        return ()
    return _known(_address(library.hipDeviceGetPCIBusId, number) for number in range(count.value))


def _by_cuda(library: Any) -> tuple[str, ...]:
    count = ctypes.c_int(0)
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    found = []
    for number in range(count.value):
        device = ctypes.c_int(0)
        if not library.cuDeviceGet(ctypes.byref(device), number):
            found.append(_address(library.cuDeviceGetPCIBusId, device.value))
    return _known(found)


def _address(ask: Any, device: int) -> str | None:
    """Both runtimes write the address into a buffer of so many bytes, and return 0."""
    text = ctypes.create_string_buffer(ADDRESS_BYTES)
    return None if ask(text, ADDRESS_BYTES, device) else bus_address(text.value.decode())


def _known(found: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(address for address in found if address is not None)
