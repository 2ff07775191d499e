"""Processor, memory, NUMA, operating system."""

import re

from steps.base.errors import UserError
from steps.machine.probes.tools import parser, text_or_none, unknown_format
from steps.machine.probes.values import Cpu, Memory, MemoryModule, NumaNode

CACHES = ("L1d", "L1i", "L2", "L3")
GIB = {"MB": 1 / 1024, "GB": 1, "TB": 1024}
"""dmidecode writes GB and means 2^30 bytes."""


@parser("lscpu")
def lscpu(text: str) -> Cpu:
    """`lscpu`, its plain table."""
    fields = _colon(text)
    if "Model name" not in fields:
        raise unknown_format("lscpu", "'Model name'")
    speed = text_or_none(fields.get("CPU max MHz"))
    caches = [f"{name} {fields[f'{name} cache']}" for name in CACHES if f"{name} cache" in fields]
    return Cpu(
        model=fields["Model name"],
        sockets=int(fields["Socket(s)"]),
        cores_per_socket=int(fields["Core(s) per socket"]),
        threads_per_core=int(fields["Thread(s) per core"]),
        max_mhz=float(speed) if speed else None,
        caches=", ".join(caches),
    )


@parser("/proc/meminfo")
def meminfo(text: str) -> Memory:
    """`/proc/meminfo`."""
    fields = _colon(text)
    if "MemTotal" not in fields:
        raise unknown_format("/proc/meminfo", "'MemTotal'")
    return Memory(
        total_kib=int(fields["MemTotal"].removesuffix("kB")),
        available_kib=int(fields.get("MemAvailable", "0 kB").removesuffix("kB")),
        huge_pages=int(fields.get("HugePages_Total", "0")),
    )


@parser("dmidecode")
def dmidecode(text: str) -> tuple[MemoryModule, ...]:
    """`dmidecode --type memory`: the slots that are filled."""
    if "Permission denied" in text:
        raise UserError("dmidecode may read the memory modules only as root")
    blocks = re.split(r"\n\s*\n", text)
    devices = [b for b in blocks if re.search(r"^Memory Device\s*$", b, re.MULTILINE)]
    if not devices:
        raise unknown_format("dmidecode", "'Memory Device'")
    found = []
    for fields in map(_colon, devices):
        match = re.fullmatch(r"(\d+) (MB|GB|TB)", fields.get("Size", ""))
        if match:
            found.append(
                MemoryModule(
                    gib=round(int(match[1]) * GIB[match[2]]),
                    kind=text_or_none(fields.get("Type")) or "",
                    maker=text_or_none(fields.get("Manufacturer")) or "",
                    part=text_or_none(fields.get("Part Number")) or "",
                )
            )
    return tuple(found)


@parser("numactl")
def numactl(text: str) -> tuple[NumaNode, ...]:
    """`numactl --hardware`, in the order of the nodes' numbers."""
    cpus = dict(re.findall(r"^node (\d+) cpus:(.*)$", text, re.MULTILINE))
    sizes = dict(re.findall(r"^node (\d+) size: (\d+) MB", text, re.MULTILINE))
    if not cpus or cpus.keys() != sizes.keys():
        raise unknown_format("numactl", "'node 0 cpus' and 'node 0 size'")
    return tuple(
        NumaNode(cpus=len(cpus[node].split()), memory_mb=int(sizes[node]))
        for node in sorted(cpus, key=int)
    )


@parser("/etc/os-release")
def os_release(text: str) -> str:
    """The PRETTY_NAME."""
    match = re.search(r"""^PRETTY_NAME=["']?([^"'\n]+)""", text, re.MULTILINE)
    if not match:
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
