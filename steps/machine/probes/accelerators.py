"""Accelerators: amd-smi, rocm-smi, rocminfo, nvidia-smi. Every version spells it differently."""

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from steps.base.errors import UserError
from steps.config.accelerators import PARTITIONS
from steps.machine.probes.losses import Loss, Losses, number, text_or_none, whole, words
from steps.machine.probes.tools import (
    are_records,
    json_in,
    parser,
    record_of,
    rocm_cards,
    unknown_format,
)
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
    "pcie.link.gen.max,pcie.link.width.max,compute_cap,pci.bus_id,memory.used"
)
MIB = {"B": 2**-20, "KB": 2**-10, "MB": 1, "GB": 2**10}
"""amd-smi writes MB and means 2^20 bytes: an MI300X has 196592."""


FIELDS: Mapping[str, str] = {
    "model": "accelerator_model_name",
    "memory_mib": "accelerator_memory_capacity",
    "used_mib": "the accelerators' memory in use",
    "memory_type": "accelerator_memory_configuration",
    "architecture": "the accelerators' architecture",
    "driver": "other_software_stack",
    "pcie": "accelerator_host_interconnect",
    "power_limit_w": "the accelerators' highest power cap",
    "power_cap_w": "the accelerators' power cap",
    "max_clock_mhz": "accelerator_frequency",
    "compute_partition": "compute partition in hw_notes",
    "memory_partition": "memory partition in hw_notes",
    "performance_level": "the accelerators' performance level",
    "soc_pstate": "the accelerators' SoC pstate",
    "bus": "the accelerators' addresses on the bus",
}
"""What needs an accelerator's attribute: a field of the description, or one of doctor's."""


@parser("amd-smi")
def amd_smi(text: str, lost: Losses) -> tuple[Accelerator, ...]:
    """`amd-smi static --json`: a list, in releases since ROCm 7 inside {"gpu_data": ...}.

    A warning before it, about the user's groups for one, is skipped.
    """
    found = json_in(text, "amd-smi", "'gpu_data'", _is_static)
    devices = found["gpu_data"] if isinstance(found, dict) else found
    records = [record_of(device) for device in devices]
    ids = [_partition_id(record) for record in records]
    return _shared([_amd(record, lost) for record in records], ids)


def _is_static(value: Any) -> bool:
    devices: Any = value.get("gpu_data") if isinstance(value, dict) else value
    if devices == []:
        return True
    return are_records(devices) and any({"gpu", "asic"} & record_of(d).keys() for d in devices)


def _amd(device: Mapping[str, Any], lost: Losses) -> Accelerator:
    asic, vram, bus = (record_of(device.get(name)) for name in ("asic", "vram", "bus"))
    driver, limit = record_of(device.get("driver")), record_of(device.get("limit"))
    # ppt0 is the limit of the socket since ROCm 7.
    limit = record_of(limit.get("ppt0")) or limit
    partition = record_of(device.get("partition"))
    architecture = lost.read(asic, "target_graphics_version", _target, FIELDS["architecture"])
    highest = ("max_power", "max_power_limit")
    watts = lost.read(limit, highest, number, FIELDS["power_limit_w"])
    return Accelerator(
        vendor="AMD",
        bus=bus_address(bus.get("bdf")),
        model=_named(asic, "market_name", architecture, watts, lost),
        memory_mib=lost.read(vram, ("size", "vram_size"), _mib, FIELDS["memory_mib"]),
        memory_type=lost.read(vram, ("type", "vram_type"), words, FIELDS["memory_type"]),
        architecture=architecture,
        driver=lost.read(driver, ("version", "driver_version"), words, FIELDS["driver"]),
        pcie=_pcie(bus, "pcie_interface_version", "max_pcie_width", lost),
        power_limit_w=watts,
        power_cap_w=lost.read(
            limit, ("socket_power", "socket_power_limit"), number, FIELDS["power_cap_w"]
        ),
        compute_partition=lost.read(
            partition,
            ("compute_partition", "accelerator_partition"),
            _compute_mode,
            FIELDS["compute_partition"],
        ),
        memory_partition=lost.read(
            partition, "memory_partition", _memory_mode, FIELDS["memory_partition"]
        ),
        soc_pstate=lost.read(
            record_of(device.get("soc_pstate")), "current_id", _policy, FIELDS["soc_pstate"]
        ),
        firmware=_firmware(device),
    )


@parser("amd-smi")
def amd_smi_used(text: str, lost: Losses) -> tuple[int | None, ...]:
    """`amd-smi metric --mem-usage --json`: MiB of memory in use, device by device; None where the
    tool doesn't say, as for all but the first partition of a card."""
    found = json_in(text, "amd-smi", "'mem_usage'", _is_metric)
    devices = found["gpu_data"] if isinstance(found, dict) else found
    usage = [record_of(record_of(device).get("mem_usage")) for device in devices]
    return tuple(_used_mib(one.get("used_vram")) for one in usage)


def _is_metric(value: Any) -> bool:
    devices: Any = value.get("gpu_data") if isinstance(value, dict) else value
    return are_records(devices) and any("mem_usage" in record_of(device) for device in devices)


def with_used(
    found: tuple[Accelerator, ...], used: Sequence[int | None]
) -> tuple[Accelerator, ...]:
    """The memory in use beside each; nothing where the tools count differently."""
    if len(found) != len(used):
        return found
    return tuple(
        one.model_copy(update={"used_mib": mib}) if one.used_mib is None else one
        for one, mib in zip(found, used, strict=True)
    )


def _used_mib(value: Any) -> int | None:
    """Says nothing where the tool doesn't: no field of a description needs it. 0 is a reading."""
    said = value.get("value") if isinstance(value, dict) else value
    match = re.fullmatch(r"(\d{1,9})( ?(MB|MiB))?", str(said).strip())
    return int(match[1]) if match else None


def _firmware(device: Mapping[str, Any]) -> str | None:
    """Under `vbios`, in releases since ROCm 7 under `ifwi`. It only decides whether nodes are
    alike, so one that isn't reported is no complaint."""
    said = record_of(device.get("vbios") or device.get("ifwi")).get("version")
    return text_or_none(said) if isinstance(said, str) else None


def _named(
    record: Mapping[str, Any], key: str, architecture: str | None, watts: float | None, lost: Losses
) -> str | None:
    """The model without its form factor; from target and power where the tool names no model."""
    said = record.get(key)
    known = BY_POWER.get((architecture or "", watts or 0))
    if known and (text_or_none(said) is None or not isinstance(said, str) or _is_id(said)):
        return known
    return lost.read(record, key, _model, FIELDS["model"])


def _is_id(text: str) -> bool:
    return re.fullmatch(r"0x[0-9a-f]+", text) is not None


def _model(value: Any) -> str:
    text = re.sub(r"( OAM\b.*| VF)$", "", words(value)).strip()
    if not text or _is_id(text):
        raise ValueError
    return text


def _target(value: Any) -> str:
    text = words(value).lower()
    if not re.fullmatch(r"gfx[0-9a-f]{3,5}", text):
        raise ValueError
    return text


def _compute_mode(value: Any) -> str:
    mode = words(value).upper()
    if mode not in PARTITIONS:
        raise ValueError
    return mode


def _memory_mode(value: Any) -> str:
    mode = words(value).upper()
    if not re.fullmatch(r"NPS[1248]", mode):
        raise ValueError
    return mode


def _policy(value: Any) -> int:
    """The current policy's number as `amd-smi set --soc-pstate` takes it: its policy_id."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _mib(value: Any) -> int:
    unit = value.get("unit", "MB") if isinstance(value, dict) else _unit(value)
    return max(round(number(value) * MIB[unit]), 1)


def _unit(value: Any) -> str:
    return re.sub(r"[^A-Za-z]", "", str(value)) or "MB"


def _pcie(record: Mapping[str, Any], generation: str, width: str, lost: Losses) -> str | None:
    lanes = lost.read(record, width, _after("x"), FIELDS["pcie"])
    version = lost.read(record, generation, _after("Gen"), FIELDS["pcie"])
    return f"PCIe Gen{version} x{lanes}" if version and lanes else None


def _after(prefix: str) -> Callable[[Any], int]:
    """Reads "Gen 5", "x16", 5, ...: a number of at most two digits."""

    def read(value: Any) -> int:
        match = re.fullmatch(rf"(?:{prefix} ?)?([1-9]\d?)", str(value).strip(), re.IGNORECASE)
        if not match:
            raise ValueError
        return int(match[1])

    return read


def bus_address(value: Any) -> str | None:
    """A PCI address with four digits of domain, in small letters; None for anything else.

    nvidia-smi and CUDA write eight digits of domain and capitals.
    """
    pattern = r"(?:0000)?([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])"
    match = re.fullmatch(pattern, str(value).strip().lower())
    return "{}:{}:{}.{}".format(*match.groups()) if match else None


def _partition_id(device: Mapping[str, Any]) -> int | None:
    found = record_of(device.get("partition")).get("partition_id")
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _shared(devices: Sequence[Accelerator], ids: Sequence[int | None]) -> tuple[Accelerator, ...]:
    """What a card reports once applies to all its partitions.

    Since ROCm 6.4.1 only a card's first device names modes, limits and policies, the others say
    N/A. Partitions' numbers show which belong together; a tool without them lists a card's
    partitions in a row, as many as the first one's mode has.
    """
    found: list[Accelerator] = []
    first, left = None, 0
    for device, identity in zip(devices, ids, strict=True):
        unnamed = left > 0 and device.compute_partition is None
        if first is not None and (unnamed if identity is None else identity > 0):
            left -= 1
            found.append(_completed(device, first.model_copy(update={"bus": None})))
        else:
            first, left = device, PARTITIONS.get(device.compute_partition or "", 1) - 1
            found.append(device)
    return tuple(found)


def _completed(one: Accelerator, other: Accelerator) -> Accelerator:
    return one.model_copy(update={k: v for k, v in other if getattr(one, k) is None})


@parser("rocm-smi")
def rocm_smi(text: str, lost: Losses) -> tuple[Accelerator, ...]:
    """`rocm-smi --showproductname --showmeminfo vram ... --json`, in the cards' order.

    Warnings before the JSON are skipped: rocm-smi prints them to the same stream.
    """
    answer, cards = rocm_cards(text)
    driver = lost.read(record_of(answer.get("system")), "Driver version", words, FIELDS["driver"])
    found = [_rocm(card, driver, lost) for card in cards]
    return _shared(found, [None] * len(found))


def _rocm(card: Mapping[str, Any], driver: str | None, lost: Losses) -> Accelerator:
    architecture = lost.read(card, "gfx version", _target, FIELDS["architecture"])
    power = "max graphics package power (w)"
    watts = lost.read(card, power, number, FIELDS["power_cap_w"])
    size = lost.read(card, "vram total memory (b)", number, FIELDS["memory_mib"])
    return Accelerator(
        vendor="AMD",
        bus=bus_address(card.get("pci bus")),
        model=_named(card, "card series", architecture, watts, lost),
        memory_mib=max(round(size / 2**20), 1) if size else None,
        used_mib=_used(card.get("vram total used memory (b)")),
        architecture=architecture,
        driver=driver,
        power_cap_w=watts,
        max_clock_mhz=lost.read(card, "valid sclk range", _upper, FIELDS["max_clock_mhz"]),
        compute_partition=lost.read(
            card, "compute partition", _compute_mode, FIELDS["compute_partition"]
        ),
        memory_partition=lost.read(
            card, "memory partition", _memory_mode, FIELDS["memory_partition"]
        ),
        performance_level=lost.read(card, "performance level", words, FIELDS["performance_level"]),
    )


def _used(value: Any) -> int | None:
    """Says nothing where the tool doesn't: no field of a description needs it."""
    text = str(value).strip()
    return round(int(text) / 2**20) if text.isdecimal() else None


def _upper(value: Any) -> int:
    match = re.fullmatch(r"\d+ ?Mhz *- *([1-9]\d{0,4}) ?Mhz", words(value), re.IGNORECASE)
    if not match:
        raise ValueError
    return int(match[1])


@parser("rocm-smi")
def rocm_topology(text: str, lost: Losses) -> str | None:
    """`rocm-smi --showtopotype --json`: "XGMI" or "PCIe"; None with one card."""
    answer = json_in(text, "rocm-smi", "'system'", lambda value: isinstance(value, dict))
    pairs = record_of(answer.get("system"))
    read = {
        lost.read(pairs, name, words, "accelerator_interconnect")
        for name in pairs
        if "Link type between" in name
    }
    return " and ".join(sorted(filter(None, read))).replace("PCIE", "PCIe") or None


@parser("rocminfo")
def rocminfo(text: str, lost: Losses) -> tuple[Accelerator, ...]:
    """`rocminfo`: the agents of type GPU; it says little, but needs only the runtime."""
    if not re.search(r"^Agent \d+", text, re.MULTILINE):
        raise unknown_format("rocminfo", "'Agent 1'")
    agents = re.split(r"^Agent \d+\s*$", text, flags=re.MULTILINE)[1:]
    return tuple(_agent(fields, lost) for fields in map(_table, agents) if _is_gpu(fields))


def _table(agent: str) -> dict[str, str]:
    """Its own fields, indented by two blanks; the first of each name: caches and pools follow."""
    fields: dict[str, str] = {}
    for key, value in re.findall(r"^ {2}(\S[^:\n]*):(.*)$", agent, re.MULTILINE):
        fields.setdefault(key, value.strip())
    return fields


def _is_gpu(fields: Mapping[str, str]) -> bool:
    """The vendor, from the agent's name where the type is missing."""
    kind = text_or_none(fields.get("Device Type"))
    return kind == "GPU" or (kind != "CPU" and fields.get("Name", "").startswith("gfx"))


def _agent(fields: Mapping[str, str], lost: Losses) -> Accelerator:
    clock = "Max Clock Freq. (MHz)"
    return Accelerator(
        vendor="AMD",
        model=lost.read(fields, "Marketing Name", _model, FIELDS["model"]),
        architecture=lost.read(fields, "Name", _target, FIELDS["architecture"]),
        max_clock_mhz=lost.read(fields, clock, whole, FIELDS["max_clock_mhz"]),
    )


@parser("nvidia-smi")
def nvidia_smi(text: str, lost: Losses) -> tuple[Accelerator, ...]:
    """`nvidia-smi --query-gpu=... --format=csv`, with its header and units.

    It writes warnings of single devices ("WARNING: infoROM is corrupted at gpu ...") before the
    header and below the last line: a line without the header's columns isn't a device.
    """
    if "No devices were found" in text:
        return ()
    lines = _rows(text)
    at = next((i for i, line in enumerate(lines) if _is_header(line)), None)
    if at is None:
        raise unknown_format("nvidia-smi", "header")
    header = [name.split(" [")[0] for name in lines[at]]
    devices = [line for line in lines[at + 1 :] if _is_device(line)]
    for line in lines[:at] + [line for line in lines[at + 1 :] if not _is_device(line)]:
        lost.lose("", "something of an accelerator", ", ".join(line))
    if not devices:
        raise unknown_format("nvidia-smi", "line of a device")
    return tuple(_nvidia(_cells(header, line), lost) for line in devices)


def _is_header(line: Sequence[str]) -> bool:
    return len({name.split(" [")[0] for name in line} & set(NVIDIA_QUERY.split(","))) > 1


def _is_device(line: Sequence[str]) -> bool:
    return len(line) > 1 and not line[0].upper().startswith(("WARNING", "ERROR", "UNABLE"))


def _cells(header: Sequence[str], line: Sequence[str]) -> Mapping[str, str]:
    """None if their number differs from the header's: the columns are then unknown."""
    return dict(zip(header, line, strict=True)) if len(line) == len(header) else {}


def _rows(text: str) -> list[list[str]]:
    try:
        lines = list(csv.reader(text.splitlines(), skipinitialspace=True))
        return [[cell.strip() for cell in line] for line in lines if line]
    except csv.Error as error:
        raise unknown_format("nvidia-smi", f"CSV ({error})") from error


def _nvidia(row: Mapping[str, str], lost: Losses) -> Accelerator:
    capability = lost.read(row, "compute_cap", _capability, FIELDS["architecture"])
    return Accelerator(
        vendor="NVIDIA",
        bus=bus_address(row.get("pci.bus_id")),
        model=lost.read(row, "name", _model, FIELDS["model"]),
        memory_mib=lost.read(row, "memory.total", whole, FIELDS["memory_mib"]),
        used_mib=_used_mib(row.get("memory.used")),
        architecture=capability,
        driver=lost.read(row, "driver_version", words, FIELDS["driver"]),
        pcie=_pcie(row, "pcie.link.gen.max", "pcie.link.width.max", lost),
        power_limit_w=lost.read(row, "power.max_limit", number, FIELDS["power_limit_w"]),
        power_cap_w=lost.read(row, "power.limit", number, FIELDS["power_cap_w"]),
        max_clock_mhz=lost.read(row, "clocks.max.sm", whole, FIELDS["max_clock_mhz"]),
    )


def _capability(value: str) -> str:
    if not re.fullmatch(r"\d{1,2}\.\d", value):
        raise ValueError
    return f"sm_{value.replace('.', '')}"


def unsaid(losses: Iterable[Loss], found: Sequence[Accelerator]) -> list[Loss]:
    """Losses of values that neither another tool nor another device of the same card gave."""
    known = {
        field
        for attribute, field in FIELDS.items()
        if found and all(getattr(one, attribute) is not None for one in found)
    }
    return [loss for loss in losses if loss.field not in known]


def combined(
    first: tuple[Accelerator, ...], second: tuple[Accelerator, ...]
) -> tuple[Accelerator, ...]:
    """The same cards from two tools: the first tool's values, the second's where it has none."""
    if not first or not second:
        return first or second
    if len(first) != len(second):
        raise UserError(
            f"amd-smi counts {len(first)} accelerators and rocm-smi {len(second)}: "
            "accelerators_per_node is uncertain; give both tools the same ROCm release"
        )
    return tuple(_completed(one, two) for one, two in zip(first, second, strict=True))
