"""Processor, memory, NUMA, operating system."""

import re
from collections.abc import Mapping

from steps.base.errors import UserError
from steps.machine.probes.losses import Losses, natural, text_or_none, whole, words
from steps.machine.probes.tools import parser, unknown_format
from steps.machine.probes.values import Cpu, Memory, MemoryModule, NumaNode

CACHES = ("L1d", "L1i", "L2", "L3")
GIB = {"bytes": 2**-30, "kB": 2**-20, "MB": 2**-10, "GB": 1, "TB": 2**10}
"""dmidecode writes GB and means 2^30 bytes."""

CHIPS = frozenset({"ROM", "FLASH", "EEPROM", "EPROM", "FEPROM", "VRAM"})
"""Types of memory devices for firmware or video: not part of the host's memory."""

SOCKETS = "host_processors_per_node"


@parser("lscpu")
def lscpu(text: str, lost: Losses) -> Cpu:
    """`lscpu`, its plain table. ARM servers without a table of their sockets have "-" there."""
    fields = _colon(text)
    if not {"Model name", "Architecture", "CPU(s)"} & fields.keys():
        raise unknown_format("lscpu", "'Model name'")
    speed = lost.read(fields, "CPU max MHz", _mhz, "host_processor_frequency")
    return Cpu(
        model=lost.read(fields, "Model name", words, "host_processor_model_name"),
        sockets=lost.read(fields, "Socket(s)", whole, SOCKETS),
        cores_per_socket=lost.read(
            fields, "Core(s) per socket", whole, "host_processor_core_count"
        ),
        threads_per_core=lost.read(fields, "Thread(s) per core", whole, "threads per core"),
        max_mhz=speed,
        caches=_caches(fields, lost),
    )


def _mhz(value: str) -> float:
    """The decimal point may be a comma: some keep the locale in spite of LC_ALL."""
    found = float(value.replace(",", "."))
    if not 0 < found < 1e6:
        raise ValueError
    return found


def _caches(fields: Mapping[str, str], lost: Losses) -> str:
    """Newer releases write "L3" in a section of their own where older ones write "L3 cache"."""
    found = {
        name: lost.read(fields, (f"{name} cache", name), words, "host_processor_caches")
        for name in CACHES
    }
    return ", ".join(f"{name} {size}" for name, size in found.items() if size)


@parser("/proc/meminfo")
def meminfo(text: str, lost: Losses) -> Memory:
    """`/proc/meminfo`."""
    fields = _colon(text)
    if not {"MemTotal", "MemFree", "MemAvailable"} & fields.keys():
        raise unknown_format("/proc/meminfo", "'MemTotal'")
    return Memory(
        total_kib=lost.read(fields, "MemTotal", whole, "host_memory_capacity"),
        available_kib=lost.read(fields, "MemAvailable", natural, "available memory"),
        huge_pages=lost.read(fields, "HugePages_Total", natural, "huge pages"),
    )


@parser("dmidecode")
def dmidecode(text: str, lost: Losses) -> tuple[MemoryModule, ...]:
    """`dmidecode --type memory`: the filled slots, without firmware's chips."""
    if "Permission denied" in text:
        raise UserError("dmidecode may read the memory modules only as root")
    blocks = re.split(r"\n\s*\n", text)
    devices = [b for b in blocks if re.search(r"^Memory Device\s*$", b, re.MULTILINE)]
    if not devices:
        raise unknown_format("dmidecode", "'Memory Device'")
    if "table is broken" in text:
        lost.lose("all of its table", "host_memory_configuration", "broken")
    return tuple(_module(fields, lost) for fields in map(_colon, devices) if _filled(fields))


def _filled(fields: Mapping[str, str]) -> bool:
    kind = fields.get("Type", "").upper()
    if kind in CHIPS or kind.startswith("LOGICAL"):
        return False
    return fields.get("Size", "").lower() not in (
        "no module installed",
        "not installed",
        "not enabled",
    )


def _module(fields: Mapping[str, str], lost: Losses) -> MemoryModule:
    what = "host_memory_configuration"
    return MemoryModule(
        gib=lost.read(fields, "Size", _gib, f"{what} and host_memory_capacity"),
        kind=lost.read(fields, "Type", words, what) or "",
        maker=lost.read(fields, "Manufacturer", words, what) or "",
        part=lost.read(fields, "Part Number", words, what) or "",
    )


def _gib(value: str) -> float:
    match = re.fullmatch(r"(\d+) (\w+)", value)
    if not match or not int(match[1]):
        raise ValueError
    return int(match[1]) * GIB[match[2]]


@parser("numactl")
def numactl(text: str, lost: Losses) -> tuple[NumaNode, ...]:
    """`numactl --hardware`, in the order of the nodes' numbers; none without NUMA."""
    if "No NUMA" in text:
        return ()
    found: dict[int, dict[str, str]] = {}
    for node, name, value in re.findall(
        r"^node (\d{1,6}) (cpus|size|free):(.*)$", text, re.MULTILINE
    ):
        found.setdefault(int(node), {})[name] = value.strip()
    if not found:
        raise unknown_format("numactl", "'node 0 cpus' and 'node 0 size'")
    return tuple(_node(fields, lost) for _, fields in sorted(found.items()))


def _node(fields: Mapping[str, str], lost: Losses) -> NumaNode:
    """Nodes of memory only have no CPUs: an empty list is valid."""
    what = "NUMA (in hw_notes)"
    cpus = fields.get("cpus", "-").split()
    known = [cpu for cpu in cpus if re.fullmatch(r"\d{1,6}", cpu)]
    if len(known) < len(cpus):
        lost.lose("cpus", what, fields.get("cpus"))
    return NumaNode(
        cpus=len(known),
        memory_mb=lost.read(fields, "size", natural, what),
    )


@parser("/etc/os-release")
def os_release(text: str, lost: Losses) -> str:
    """The PRETTY_NAME."""
    match = re.search(r"""^PRETTY_NAME=["']?([^"'\n]+)""", text, re.MULTILINE)
    if not match or text_or_none(match[1]) is None:
        raise unknown_format("/etc/os-release", "PRETTY_NAME")
    return match[1].strip()


def _colon(text: str) -> dict[str, str]:
    """`key: value` lines; of a repeated key the first."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields
