"""Outputs of tools with fields missing, odd, added and reordered, and warnings around them.

Each tool has a sample of `tests/recorded` taken apart into records of flat keys, the fields that
its parser reads, and a way to put records together again. A strategy draws what happens to them;
`check` says what must hold: no record is gone, what wasn't touched is what it was, and what is
gone is named.
"""

import copy
import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from steps.machine.probes import accelerators, devices, host
from steps.machine.probes.losses import Losses
from steps.schedule import slurm
from tests.conftest import ROOT

RECORDED = ROOT / "tests/recorded"

Key = tuple[str, ...]
Record = dict[Key, Any]

ABSENT = st.sampled_from(["N/A", "", "[N/A]", "Unknown", "-", "(null)", "None"])
TEXTS = st.sampled_from(["?", "-1", "0x", "4x4", "nan", "1e999", "12 parsecs", "9" * 5000, "é"])
THINGS = st.sampled_from([None, [], {}, [3], {"unit": "W"}, True, -7, 1e300])


@dataclass(frozen=True)
class Field:
    """`key`: where it is in a record; `attribute`: where it is in what the parser makes of it.

    `free`: any text is an answer there. `named`: part of what a loss of it says. `odd`: values
    that are none there, where they aren't those of all fields.
    """

    key: Key
    attribute: str
    named: str
    free: bool = False
    odd: st.SearchStrategy[Any] | None = None


@dataclass(frozen=True)
class Tool:
    """`parse` gives one value per record; `constant` fields are the same for all records."""

    sample: str
    take: Callable[[str], list[Record]]
    put: Callable[[Sequence[Record]], str]
    parse: Callable[[str, Losses], Sequence[Any]]
    fields: Sequence[Field]
    typed: bool = True
    shuffled: bool = True
    removed: bool = True
    before: Sequence[str] = ("WARNING: something [0] is {odd}", "[1] and a log line")
    after: Sequence[str] = ()
    extra: Mapping[Key, Any] = field(default_factory=dict)


@dataclass
class Case:
    text: str = field(repr=False)
    touched: dict[tuple[int, Key], Any]


@st.composite
def cases(draw: st.DrawFn, tool: Tool) -> Case:
    records = copy.deepcopy(tool.take((RECORDED / tool.sample).read_text(encoding="utf-8")))
    touched: dict[tuple[int, Key], Any] = {}
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(records) - 1))
        known = [f for f in tool.fields if f.key in records[at]]
        if not known:
            continue
        chosen = draw(st.sampled_from(known))
        values = ABSENT if chosen.free else ABSENT | TEXTS
        values = values | THINGS if tool.typed else values
        values = values if chosen.odd is None else chosen.odd
        if tool.removed and draw(st.booleans()):
            del records[at][chosen.key]
            touched[at, chosen.key] = "removed"
        else:
            touched[at, chosen.key] = records[at][chosen.key] = draw(values)
    for key, value in tool.extra.items():
        if draw(st.booleans()):
            records[draw(st.integers(0, len(records) - 1))][key] = value
    if tool.shuffled:
        records = [dict(draw(st.permutations(list(one.items())))) for one in records]
    before = draw(st.lists(st.sampled_from(tool.before), max_size=2)) if tool.before else []
    after = draw(st.lists(st.sampled_from(tool.after), max_size=1)) if tool.after else []
    text = "".join(f"{line}\n" for line in before) + tool.put(records)
    return Case(text + "".join(f"\n{line}" for line in after), touched)


def check(tool: Tool, case: Case) -> None:
    """Raises AssertionError with what is gone or unnamed."""
    whole = tool.parse((RECORDED / tool.sample).read_text(encoding="utf-8"), Losses())
    lost = Losses()
    found = tool.parse(case.text, lost)
    assert len(found) == len(whole), f"{len(whole) - len(found)} records are gone"
    said = "\n".join(map(str, lost.counts))
    attributes = {
        f.attribute: [g for g in tool.fields if g.attribute == f.attribute] for f in tool.fields
    }
    for at, (one, was) in enumerate(zip(found, whole, strict=True)):
        for attribute, its in attributes.items():
            now, then = getattr(one, attribute), getattr(was, attribute)
            if now == then:
                continue
            hit = [f for f in its if (at, f.key) in case.touched]
            assert hit, f"{attribute} of record {at} is {now!r}, not {then!r}"
            named = any(f.free and now for f in hit) or any(f.named in said for f in hit)
            assert named, f"{attribute} of record {at} is lost and isn't named in {said!r:.400}"


# ---- records out of text, and back --------------------------------------------------------------


def flat(value: Mapping[str, Any], above: Key = ()) -> Record:
    found: Record = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and inner and set(inner) != {"value", "unit"}:
            found |= flat(inner, (*above, key))
        else:
            found[(*above, key)] = inner
    return found


def nested(record: Record) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in record.items():
        place = made
        for part in key[:-1]:
            place = place.setdefault(part, {})
        place[key[-1]] = value
    return made


def listed(text: str) -> list[Record]:
    return [flat(entry) for entry in json.loads(text)]


def unlisted(records: Sequence[Record]) -> str:
    return json.dumps([nested(record) for record in records])


def cards(text: str) -> list[Record]:
    return [flat(card) for name, card in json.loads(text).items() if name.startswith("card")]


def uncarded(records: Sequence[Record]) -> str:
    named = {f"card{at}": nested(record) for at, record in enumerate(records)}
    return json.dumps({"system": {"Driver version": "6.10.5"}, **named})


def blocks(text: str) -> list[Record]:
    """The disks alone: what else lsblk lists is put back around them."""
    return [
        {(key,): value for key, value in entry.items()}
        for entry in json.loads(text)["blockdevices"]
        if entry["type"] == "disk" and entry["tran"] != "usb" and int(entry["size"]) > 10**9
    ]


def unblocked(records: Sequence[Record]) -> str:
    others = [
        {"name": "loop0", "type": "loop", "size": 66650112, "rota": False, "tran": None},
        {"name": "sdz", "type": "disk", "size": 31457280000, "rota": True, "tran": "usb"},
    ]
    return json.dumps({"blockdevices": [*others, *map(nested, records)]})


def colons(text: str) -> Record:
    found: Record = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault((key.strip(),), value.strip())
    return found


def table(text: str) -> list[Record]:
    return [colons(text)]


def untable(records: Sequence[Record]) -> str:
    return "".join(f"{key[0]}: {value}\n" for record in records for key, value in record.items())


def modules(text: str) -> list[Record]:
    return [colons(block) for block in text.split("\n\n") if re.search(r"Size: \d+ GB", block)]


def unmoduled(records: Sequence[Record]) -> str:
    head = "# dmidecode 3.5\nSMBIOS 3.7.0 present.\n"
    parts = [
        "Handle 0x1100, DMI type 17, 92 bytes\nMemory Device\n"
        + "".join(f"\t{key[0]}: {value}\n" for key, value in record.items())
        for record in records
    ]
    return "\n".join([head, *parts])


def agents(text: str) -> list[Record]:
    found = []
    for agent in re.split(r"^Agent \d+\s*$", text, flags=re.MULTILINE)[1:]:
        pairs = re.findall(r"^ {2}(\S[^:\n]*):(.*)$", agent, re.MULTILINE)
        record = {(key,): value.strip() for key, value in pairs}
        if record.get(("Device Type",)) == "GPU":
            found.append(record)
    return found


def unagented(records: Sequence[Record]) -> str:
    text = "HSA Agents\n*******\nAgent 1\n*******\n  Name: AMD EPYC\n  Device Type: CPU\n"
    for number, record in enumerate(records, 2):
        lines = "".join(f"  {key[0]}:    {value}\n" for key, value in record.items())
        text += f"*******\nAgent {number}\n*******\n{lines}"
    return text + "*** Done ***\n"


def numa(text: str) -> list[Record]:
    found: dict[str, Record] = {}
    for node, key, value in re.findall(r"^node (\d+) (cpus|size|free): (.*)$", text, re.MULTILINE):
        found.setdefault(node, {})[(key,)] = value
    return list(found.values())


def unnuma(records: Sequence[Record]) -> str:
    lines = [f"available: {len(records)} nodes (0-{len(records) - 1})"]
    for node, record in enumerate(records):
        lines += [f"node {node} {key[0]}: {value}" for key, value in record.items()]
    return "\n".join([*lines, "node distances:", "node     0    1", "   0:   10   32"]) + "\n"


def rows(text: str) -> list[Record]:
    return [
        {(key,): value for key, value in row.items()}
        for row in csv.DictReader(text.splitlines(), skipinitialspace=True)
    ]


def unrowed(records: Sequence[Record]) -> str:
    """A field that one device lacks is missing from the whole table: that is how CSV loses one."""
    header = [key for key in records[0] if all(key in record for record in records)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([key[0] for key in header])
    writer.writerows([record[key] for key in header] for record in records)
    return out.getvalue().replace(",", ", ")


def piped(titles: Sequence[str]) -> Callable[[str], list[Record]]:
    def take(text: str) -> list[Record]:
        lines = [line.split("|", len(titles) - 1) for line in text.splitlines()]
        return [{(t,): c for t, c in zip(titles, line, strict=True)} for line in lines]

    return take


def unpiped(records: Sequence[Record]) -> str:
    return "".join("|".join(map(str, record.values())) + "\n" for record in records)


# ---- the tools ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    mbit: int | None


@dataclass(frozen=True)
class Node:
    gpus: Mapping[str, int] | None
    limit: int | None


@dataclass(frozen=True)
class Accounting:
    there: bool


def _sinfo(text: str, lost: Losses) -> list[Node]:
    _, limit, nodes = slurm.partition(text, "main", lost)
    return [Node(node, limit if at == 0 else None) for at, node in enumerate(nodes)]


def _amd(key: str, attribute: str, free: bool = False) -> Field:
    path = tuple(key.split("."))
    return Field(path, attribute, path[-1], free)


def _plain(key: str, attribute: str, free: bool = False, named: str = "") -> Field:
    return Field((key,), attribute, named or key, free)


AMD = (
    _amd("asic.market_name", "model", free=True),
    _amd("asic.target_graphics_version", "architecture"),
    _amd("vram.size", "memory_mib"),
    _amd("vram.type", "memory_type", free=True),
    _amd("driver.version", "driver", free=True),
    _amd("bus.pcie_interface_version", "pcie"),
    _amd("bus.max_pcie_width", "pcie"),
    _amd("partition.compute_partition", "compute_partition"),
    _amd("partition.memory_partition", "memory_partition"),
    _amd("soc_pstate.current_id", "soc_pstate"),
)
AMD_ODD = {("future", "section"): {"value": 3}, ("asic", "new_key"): "x", ("notes",): ["a"]}
ROCM = (
    _plain("Card Series", "model", free=True, named="card series"),
    _plain("GFX Version", "architecture", named="gfx version"),
    _plain("VRAM Total Memory (B)", "memory_mib", named="vram total memory"),
    _plain("Max Graphics Package Power (W)", "power_cap_w", named="max graphics package power"),
    _plain("Valid sclk range", "max_clock_mhz", named="valid sclk range"),
    _plain("Compute Partition", "compute_partition", named="compute partition"),
    _plain("Memory Partition", "memory_partition", named="memory partition"),
    _plain("Performance Level", "performance_level", free=True, named="performance level"),
)
LSCPU = (
    _plain("Model name", "model", free=True),
    _plain("Socket(s)", "sockets"),
    _plain("Core(s) per socket", "cores_per_socket"),
    _plain("Thread(s) per core", "threads_per_core"),
    _plain("CPU max MHz", "max_mhz"),
    *(_plain(f"{name} cache", "caches", free=True) for name in host.CACHES),
)
GPU_FREE = ("name", "driver_version")

TOOLS: Mapping[str, Tool] = {
    "amd-smi": Tool(
        "amd-smi-static-8xmi300x.json",
        listed,
        unlisted,
        lambda text, lost: accelerators.amd_smi(text, lost),
        (
            *AMD,
            _amd("limit.max_power", "power_limit_w"),
            _amd("limit.socket_power", "power_cap_w"),
        ),
        extra=AMD_ODD,
        after=("WARNING: 2 devices were skipped",),
    ),
    "amd-smi of ROCm 7": Tool(
        "amd-smi-static-8xmi355x.json",
        lambda text: [flat(device) for device in json.loads(text)["gpu_data"]],
        lambda records: json.dumps({"gpu_data": [nested(record) for record in records]}),
        lambda text, lost: accelerators.amd_smi(text, lost),
        (
            *AMD[:7],
            AMD[9],
            _amd("limit.ppt0.max_power_limit", "power_limit_w"),
            _amd("limit.ppt0.socket_power_limit", "power_cap_w"),
        ),
        extra=AMD_ODD,
    ),
    "amd-smi in CPX": Tool(
        "amd-smi-static-64xmi300x-cpx.json",
        lambda text: listed(text)[:16],
        unlisted,
        lambda text, lost: accelerators.amd_smi(text, lost)[:16],
        AMD[1:7],
        extra=AMD_ODD,
    ),
    "rocm-smi": Tool(
        "rocm-smi-8xmi300x.json",
        cards,
        uncarded,
        lambda text, lost: accelerators.rocm_smi(text, lost),
        ROCM,
        extra={("Card Voltage",): "N/A", ("New Thing",): {"a": []}},
        before=(
            "WARNING: AMD GPU device(s) is/are in a low-power state. Check power control",
            'Expected integer value from monitor, but got ""',
            "ERROR: GPU[1]\t: get_power_cap, Not supported on the given system",
        ),
    ),
    "rocminfo": Tool(
        "rocminfo-1xmi300x.txt",
        agents,
        unagented,
        lambda text, lost: accelerators.rocminfo(text, lost),
        (
            _plain("Marketing Name", "model", free=True),
            _plain("Name", "architecture"),
            _plain("Max Clock Freq. (MHz)", "max_clock_mhz"),
        ),
        typed=False,
        extra={("New Field",): "7"},
        before=("ROCk module version 6.10.5 is loaded", "amdgpu: unrecognized option: [x]"),
    ),
    "nvidia-smi": Tool(
        "nvidia-smi-8xh100.csv",
        rows,
        unrowed,
        lambda text, lost: accelerators.nvidia_smi(text, lost),
        tuple(
            _plain(key, attribute, key in GPU_FREE, key.split(" [")[0])
            for key, attribute in {
                "name": "model",
                "memory.total [MiB]": "memory_mib",
                "driver_version": "driver",
                "power.max_limit [W]": "power_limit_w",
                "power.limit [W]": "power_cap_w",
                "clocks.max.sm [MHz]": "max_clock_mhz",
                "pcie.link.gen.max": "pcie",
                "pcie.link.width.max": "pcie",
                "compute_cap": "architecture",
            }.items()
        ),
        typed=False,
        removed=False,
        shuffled=False,
        before=("Unable to determine the device handle for GPU0000:C9:00.0: Unknown Error",),
        after=("WARNING: infoROM is corrupted at gpu 0000:B3:00.0",),
    ),
    "lscpu": Tool(
        "lscpu-epyc-9575f.txt",
        table,
        untable,
        lambda text, lost: [host.lscpu(text, lost)],
        LSCPU,
        typed=False,
        extra={("Frequency scaling",): "58%", ("BIOS Model name",): "AMD EPYC"},
        before=("lscpu: cannot read /sys/devices/system/cpu: odd", "warning without a colon"),
    ),
    "dmidecode": Tool(
        "dmidecode-24x96gb.txt",
        modules,
        unmoduled,
        lambda text, lost: host.dmidecode(text, lost),
        (
            _plain("Size", "gib"),
            _plain("Type", "kind", free=True),
            _plain("Manufacturer", "maker", free=True),
            _plain("Part Number", "part", free=True),
        ),
        typed=False,
        extra={("Logical Size",): "None", ("Module Product ID",): "Unknown"},
        before=("# SMBIOS implementations newer than version 3.5.0 are not", "/dev/mem: odd"),
    ),
    "numactl": Tool(
        "numactl-2-nodes.txt",
        numa,
        unnuma,
        lambda text, lost: host.numactl(text, lost),
        (
            Field(("cpus",), "cpus", "cpus", odd=st.sampled_from(["-", "?", "0-x", "<none>"])),
            _plain("size", "memory_mb"),
        ),
        typed=False,
        extra={("hugepages",): "0"},
        before=("libnuma: Warning: /sys not mounted or invalid.",),
    ),
    "ip": Tool(
        "ip-link-bond.json",
        lambda text: [record for record in listed(text) if _is_port(nested(record))],
        lambda records: json.dumps(
            [{"ifname": "lo", "link_type": "loopback"}, *map(nested, records)]
        ),
        lambda text, lost: [one for one in devices.ip_link(text, lost) if one.of_a_bus],
        (
            _plain("ifname", "name", free=True),
            _plain("link_type", "kind"),
        ),
        extra={("gro_ipv4_max_size",): 65536, ("vfinfo_list",): [{"vf": 0}], ("xdp",): {}},
        before=("Dump was interrupted and may be inconsistent.", "RTNETLINK answers: [odd]"),
    ),
    "ethtool": Tool(
        "ethtool-400g.txt",
        table,
        untable,
        lambda text, lost: [Speed(devices.ethtool(text, lost))],
        (_plain("Speed", "mbit"),),
        typed=False,
        extra={("Lanes",): "4", ("SerDes",): "PAM4"},
        before=("netlink error: Operation not permitted",),
    ),
    "lsblk": Tool(
        "lsblk.json",
        blocks,
        unblocked,
        lambda text, lost: devices.lsblk(text, lost),
        (
            _plain("size", "gb"),
            _plain("tran", "kind", free=True),
            Field(("rota",), "kind", "rota", odd=ABSENT | TEXTS),
            _plain("type", "gb"),
        ),
        extra={("wwn",): None, ("mountpoints",): [None], ("serial",): "S1"},
        before=("lsblk: sdz: failed to get device path",),
    ),
    "scontrol": Tool(
        "scontrol-config.txt",
        lambda text: [
            {(key.strip(),): value.strip()}
            for line in text.splitlines()
            for key, equals, value in [line.partition("=")]
            if equals
        ],
        lambda records: "".join(
            f"{key[0]:<24}= {value}\n" for record in records for key, value in record.items()
        ),
        lambda text, lost: [Accounting(slurm.has_accounting(text))],
        (),
        typed=False,
        before=("slurm_load_ctl_conf: [odd] warning",),
        extra={("AccountingStorageNew",): "accounting_storage/slurmdbd"},
    ),
    "sinfo": Tool(
        "sinfo.txt",
        piped(["PARTITION", "TIMELIMIT", "GRES", "NODELIST"]),
        unpiped,
        _sinfo,
        (
            Field(("TIMELIMIT",), "limit", "TIMELIMIT", odd=TEXTS),
            Field(("GRES",), "gpus", "GRES", odd=st.sampled_from(["", "gpu", "gpu:?", "gpu:x:y"])),
        ),
        typed=False,
        shuffled=False,
        removed=False,
        before=("sinfo: warning: something odd",),
    ),
    "squeue": Tool(
        "squeue.txt",
        piped(["JOBID", "STATE", "NAME", "NODELIST", "COMMENT", "REASON"]),
        unpiped,
        lambda text, lost: slurm.entries(text, "reprise-1", lost),
        (
            _plain("JOBID", "number", free=True),
            _plain("STATE", "state", free=True),
            _plain("COMMENT", "comment", free=True),
            _plain("REASON", "reason", free=True),
        ),
        typed=False,
        shuffled=False,
        removed=False,
        before=("squeue: warning: something odd",),
    ),
}
"""sacct isn't among them: Snakemake's plugin reads it, nothing here does."""


def _is_port(entry: Mapping[str, Any]) -> bool:
    made = entry.get("linkinfo", {}).get("info_kind")
    virtual = made and (made != "ipoib" or "link" in entry)
    port = str(entry.get("phys_port_name", ""))
    return entry.get("parentbus") == "pci" and not virtual and not port.startswith("pf0vf")
