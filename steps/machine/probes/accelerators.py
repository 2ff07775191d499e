"""Accelerators: amd-smi, rocm-smi, rocminfo, nvidia-smi. Every version spells it differently."""

import csv
import json
import re
from collections.abc import Mapping
from typing import Any

from steps.base.errors import UserError
from steps.machine.probes.tools import parser, text_or_none, unknown_format
from steps.machine.probes.values import Accelerator

BY_POWER: Mapping[tuple[str, float], str] = {
    ("gfx942", 750): "AMD Instinct MI300X",
    ("gfx942", 1000): "AMD Instinct MI325X",
    ("gfx950", 1000): "AMD Instinct MI350X",
    ("gfx950", 1400): "AMD Instinct MI355X",
}
"""Where a driver names no model: target and board power (AMD's determine_accelerator.sh, v5.1)."""

NVIDIA_QUERY = (
    "name,memory.total,driver_version,power.max_limit,power.limit,clocks.max.sm,"
    "pcie.link.gen.max,pcie.link.width.max,compute_cap"
)
MIB = {"B": 2**-20, "KB": 2**-10, "MB": 1, "GB": 2**10}
"""amd-smi writes MB and means 2^20 bytes: an MI300X has 196592."""


@parser("amd-smi")
def amd_smi(text: str) -> tuple[Accelerator, ...]:
    """`amd-smi static --json`: a list, in releases since ROCm 7 inside {"gpu_data": ...}."""
    devices = json.loads(text)
    if isinstance(devices, dict):
        devices = devices["gpu_data"]
    return tuple(_amd(device) for device in devices if "asic" in device)


def _amd(device: Mapping[str, Any]) -> Accelerator:
    asic, vram, bus = (_section(device, name) for name in ("asic", "vram", "bus"))
    driver, limit = _section(device, "driver"), _section(device, "limit")
    # ppt0 is the limit of the socket since ROCm 7.
    limit = _section(limit, "ppt0") or limit
    highest = _first(limit, "max_power", "max_power_limit")
    cap = _first(limit, "socket_power", "socket_power_limit")
    size = _first(vram, "size", "vram_size")
    architecture = text_or_none(asic.get("target_graphics_version"))
    watts = _number(highest)
    partition = _section(device, "partition")
    name = text_or_none(asic.get("market_name")) or BY_POWER.get((architecture or "", watts or 0))
    return Accelerator(
        vendor="AMD",
        model=_model(name),
        memory_mib=_mib(size),
        memory_type=text_or_none(_first(vram, "type", "vram_type")),
        architecture=architecture,
        driver=text_or_none(_first(driver, "version", "driver_version")),
        pcie=_pcie(bus.get("pcie_interface_version"), bus.get("max_pcie_width")),
        power_limit_w=watts,
        power_cap_w=_number(cap) or None,
        compute_partition=text_or_none(
            _first(partition, "compute_partition", "accelerator_partition")
        ),
        memory_partition=text_or_none(partition.get("memory_partition")),
        soc_pstate=_soc_pstate(_section(device, "soc_pstate")),
    )


def _soc_pstate(section: Mapping[str, Any]) -> int | None:
    """The current policy's number as `amd-smi set --soc-pstate` takes it: its policy_id."""
    current = section.get("current_id")
    return current if isinstance(current, int) else None


def _section(value: Any, name: str) -> Mapping[str, Any]:
    """A part of amd-smi's answer; it writes "N/A" where a part doesn't apply."""
    part = value.get(name)
    return part if isinstance(part, dict) else {}


def _first(section: Mapping[str, Any], *names: str) -> Any:
    return next((section[name] for name in names if name in section), None)


def _number(value: Any) -> float | None:
    """A reading: a number, or a value with its unit."""
    if isinstance(value, dict):
        value = value.get("value")
    text = text_or_none(value)
    return float(text) if text else None


def _mib(value: Any) -> int | None:
    number = _number(value)
    unit = value.get("unit", "MB") if isinstance(value, dict) else "MB"
    return round(number * MIB[unit]) if number else None


def _pcie(generation: Any, width: Any) -> str | None:
    number = re.search(r"\d+", str(generation))
    lanes = re.search(r"\d+", str(width))
    return f"PCIe Gen{number[0]} x{lanes[0]}" if number and lanes else None


def _model(name: str | None) -> str | None:
    """The name without its form factor."""
    return re.sub(r"( OAM\b.*| VF)$", "", name).strip() if name else None


@parser("rocm-smi")
def rocm_smi(text: str) -> tuple[Accelerator, ...]:
    """`rocm-smi --showproductname --showmeminfo vram ... --json`, in the cards' order.

    Warnings before the JSON are skipped: rocm-smi prints them to the same stream.
    """
    answer = json.loads(text[max(text.find("{"), 0) :])
    driver = text_or_none(answer.get("system", {}).get("Driver version"))
    cards = sorted((name for name in answer if re.fullmatch(r"card\d+", name)), key=_card)
    if not cards:
        raise unknown_format("rocm-smi", "'card0'")
    return tuple(
        _rocm({key.lower(): value for key, value in answer[card].items()}, driver) for card in cards
    )


def _card(name: str) -> int:
    return int(name.removeprefix("card"))


def _rocm(card: Mapping[str, Any], driver: str | None) -> Accelerator:
    architecture = text_or_none(card.get("gfx version"))
    watts = _number(card.get("max graphics package power (w)"))
    size = _number(card.get("vram total memory (b)"))
    clock = re.search(r"-\s*(\d+)\s*Mhz", str(card.get("valid sclk range")), re.IGNORECASE)
    name = text_or_none(card.get("card series"))
    if name is None or re.fullmatch(r"0x[0-9a-f]+", name):
        name = BY_POWER.get((architecture or "", watts or 0))
    return Accelerator(
        vendor="AMD",
        model=_model(name),
        memory_mib=round(size / 2**20) if size else None,
        architecture=architecture,
        driver=driver,
        power_cap_w=watts,
        max_clock_mhz=int(clock[1]) if clock else None,
        compute_partition=text_or_none(card.get("compute partition")),
        memory_partition=text_or_none(card.get("memory partition")),
        performance_level=text_or_none(card.get("performance level")),
    )


@parser("rocm-smi")
def rocm_topology(text: str) -> str | None:
    """`rocm-smi --showtopotype --json`: "XGMI" or "PCIe"; None with one card."""
    pairs: Mapping[str, Any] = json.loads(text[max(text.find("{"), 0) :]).get("system", {})
    kinds = {str(kind) for name, kind in pairs.items() if "Link type between" in name}
    return " and ".join(sorted(kinds)).replace("PCIE", "PCIe") or None


@parser("rocminfo")
def rocminfo(text: str) -> tuple[Accelerator, ...]:
    """`rocminfo`: the agents of type GPU; says little, but needs nothing but the runtime."""
    if not re.search(r"^Agent \d+", text, re.MULTILINE):
        raise unknown_format("rocminfo", "'Agent 1'")
    found = []
    for agent in re.split(r"^Agent \d+\s*$", text, flags=re.MULTILINE)[1:]:
        if re.search(r"^ {2}Device Type: +GPU", agent, re.MULTILINE):
            name = re.search(r"^ {2}Name: +(\S+)", agent, re.MULTILINE)
            model = re.search(r"^ {2}Marketing Name:[ \t]*(.*)$", agent, re.MULTILINE)
            clock = re.search(r"^ {2}Max Clock Freq\. \(MHz\): +(\d+)", agent, re.MULTILINE)
            found.append(
                Accelerator(
                    vendor="AMD",
                    model=_model(text_or_none(model[1])) if model else None,
                    architecture=name[1] if name else None,
                    max_clock_mhz=int(clock[1]) if clock else None,
                )
            )
    return tuple(found)


@parser("nvidia-smi")
def nvidia_smi(text: str) -> tuple[Accelerator, ...]:
    """`nvidia-smi --query-gpu=... --format=csv`, with its header and units."""
    if text.strip() == "No devices were found":
        return ()
    try:
        rows = list(csv.DictReader(text.splitlines(), skipinitialspace=True))
    except csv.Error as error:
        raise unknown_format("nvidia-smi", f"CSV ({error})") from error
    if not rows:
        raise unknown_format("nvidia-smi", "line of a device")
    return tuple(_nvidia({_plain(k): v for k, v in row.items()}) for row in rows)


def _plain(header: str | None) -> str:
    return (header or "").split(" [")[0]


def _nvidia(row: Mapping[str, Any]) -> Accelerator:
    size, limit, cap, clock = (
        _number((row[name] or "").split(" ")[0])
        for name in ("memory.total", "power.max_limit", "power.limit", "clocks.max.sm")
    )
    capability = text_or_none(row["compute_cap"])
    return Accelerator(
        vendor="NVIDIA",
        model=text_or_none(row["name"]),
        memory_mib=round(size) if size else None,
        architecture=f"sm_{capability.replace('.', '')}" if capability else None,
        driver=text_or_none(row["driver_version"]),
        pcie=_pcie(row["pcie.link.gen.max"], row["pcie.link.width.max"]),
        power_limit_w=limit,
        power_cap_w=cap,
        max_clock_mhz=round(clock) if clock else None,
    )


def combined(
    first: tuple[Accelerator, ...], second: tuple[Accelerator, ...]
) -> tuple[Accelerator, ...]:
    """What two tools say of the same cards: the first where it knows, the second elsewhere."""
    if not first or not second:
        return first or second
    if len(first) != len(second):
        raise UserError(
            f"amd-smi counts {len(first)} accelerators and rocm-smi {len(second)}: "
            "accelerators_per_node is uncertain; give both tools the same ROCm release"
        )
    return tuple(
        one.model_copy(update={k: v for k, v in two if getattr(one, k) is None})
        for one, two in zip(first, second, strict=True)
    )
