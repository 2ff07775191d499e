"""The tools' answers, typed. None: the tool is absent or doesn't report it."""

from typing import Literal

from steps.base.strict import NotNegative, Positive, PositiveNumber, Strict
from steps.config.accelerators import Vendor


class Cpu(Strict):
    """`lscpu`. `caches` as it prints them: "L3 512 MiB (16 instances)"."""

    model: str | None
    sockets: Positive | None
    cores_per_socket: Positive | None
    threads_per_core: Positive | None
    max_mhz: PositiveNumber | None
    caches: str


class Memory(Strict):
    """`/proc/meminfo`, in KiB; `huge_pages` are those reserved at boot, not transparent ones."""

    total_kib: Positive | None
    available_kib: int | None
    huge_pages: int | None


class MemoryModule(Strict):
    """One DIMM of `dmidecode --type memory`; "" for what it doesn't report."""

    gib: PositiveNumber | None
    kind: str
    maker: str
    part: str


class NumaNode(Strict):
    """`numactl --hardware`; `cpus` counts hardware threads."""

    cpus: int
    memory_mb: int | None


class Accelerator(Strict):
    """One device. `architecture`: as compilers name it, gfx942 or sm_90.

    `compute_partition`: SPX, DPX, QPX or CPX; `memory_partition`: NPS1, NPS2, NPS4 or NPS8.
    `power_limit_w` is the highest cap that may be set, `power_cap_w` the one that is.
    `performance_level`: "auto", "perf_determinism", ...; `soc_pstate`: the policy's number as
    `amd-smi set --soc-pstate` takes it; `max_clock_mhz`: what the shader clock may rise to. `bus`:
    its PCI address, as 0000:05:00.0. `used_mib`: memory that is in use. `firmware`: the version of
    its own (VBIOS or IFWI).
    """

    vendor: Vendor
    bus: str | None = None
    model: str | None = None
    memory_mib: Positive | None = None
    used_mib: NotNegative | None = None
    memory_type: str | None = None
    architecture: str | None = None
    driver: str | None = None
    pcie: str | None = None
    power_limit_w: PositiveNumber | None = None
    power_cap_w: PositiveNumber | None = None
    max_clock_mhz: Positive | None = None
    compute_partition: str | None = None
    memory_partition: str | None = None
    performance_level: str | None = None
    soc_pstate: int | None = None
    firmware: str | None = None


class Link(Strict):
    """A network interface, possibly of a device (`ip -details -json link`).

    `of_a_bus`: whether a device on one of the host's buses is behind it; None where `ip` doesn't
    say.
    """

    name: str
    kind: Literal["Ethernet", "InfiniBand"] | None
    up: bool
    of_a_bus: bool | None


class Card(Strict):
    """A link and its speed by `ethtool`; interfaces that are down have none."""

    kind: Literal["Ethernet", "InfiniBand"] | None
    speed_mbit: Positive | None


class Disk(Strict):
    """A whole disk of `lsblk`, sizes in 10^9 bytes; `kind` as "NVMe SSD"."""

    gb: PositiveNumber | None
    kind: str


class Containers(Strict):
    """A container engine that answers. `runtimes` are names that `--runtime` takes."""

    engine: Literal["Docker", "Podman"]
    version: str
    runtimes: tuple[str, ...]


class Ray(Strict):
    """A running Ray cluster (`ray status`)."""

    nodes: int
    gpus: float


class Node(Strict):
    """One machine. `problems`: what could not be read, one sentence each, with the fix.

    `accelerator_count`: devices on the PCI bus; `accelerators`: what the vendor's tools list,
    which is more where devices are partitioned, and nothing without a driver.
    `interconnect`: between accelerators ("XGMI", "PCIe"). `image`: name and id of the container
    image that runs would use.
    """

    cpu: Cpu | None
    memory: Memory | None
    memory_modules: tuple[MemoryModule, ...]
    numa: tuple[NumaNode, ...]
    accelerator_count: int
    accelerators: tuple[Accelerator, ...]
    interconnect: str | None
    cards: tuple[Card, ...]
    disks: tuple[Disk, ...]
    operating_system: str | None
    kernel: str | None
    product: str | None
    rocm: str | None
    containers: Containers | None
    ray: Ray | None
    image: str | None
    problems: tuple[str, ...]
