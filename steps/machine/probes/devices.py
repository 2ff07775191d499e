"""Network interfaces, disks, container engines, Ray."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from steps.base.errors import UserError
from steps.machine.probes.losses import Losses, natural, text_or_none, words
from steps.machine.probes.tools import are_records, json_in, parser, record_of, unknown_format
from steps.machine.probes.values import Containers, Disk, Link, Ray

LINK_KINDS: Mapping[str, Literal["Ethernet", "InfiniBand"]] = {
    "ether": "Ethernet",
    "infiniband": "InfiniBand",
}
NO_PORTS = frozenset(
    {"loopback", "none", "sit", "gre", "gre6", "ipip", "tunnel6", "can", "ppp", "rawip", "netlink"}
)
"""Types of links without an adapter: addresses within the host, tunnels, buses of control units."""

DOWN = ("DOWN", "LOWERLAYERDOWN", "NOTPRESENT", "DORMANT", "TESTING")
"""States without a speed (RFC 2863); in any other state ethtool is asked."""

CARDS = "host_network_card_count"
STORAGE = "host_storage_capacity"
SMALLEST_DISK = 1e9
"""Bytes. Below are floppies and the empty media that a management controller shows its host."""

NO_DISK = re.compile(r"(fd|zram|ram|nbd|rbd|drbd|loop|sr|mtdblock)\d")
"""Names of block devices without a disk of this machine behind them, whatever their type says."""

OTHERS = frozenset(
    {
        *("loop", "rom", "part", "lvm", "crypt", "dm", "md", "linear", "mpath", "tape", "bcache"),
        *(f"raid{level}" for level in (0, 1, 4, 5, 6, 10)),
    }
)
"""Types that aren't disks by themselves."""


@parser("ip")
def ip_link(text: str, lost: Losses) -> tuple[Link, ...]:
    """`ip -details -json link`: interfaces of a bus, also those that a bond or a bridge holds.

    Bonds, bridges, VLANs and tunnels are left out by their `info_kind`, a switch's representors of
    virtual functions by their port's name, a management controller's by its bus. Releases before
    5.14 don't say the bus: `of_a_bus` is None then.
    """
    entries = map(record_of, json_in(text, "ip", "'ifname'", _are_links))
    return tuple(_link(entry, lost) for entry in entries if _has_a_port(entry))


def _link(entry: Mapping[str, Any], lost: Losses) -> Link:
    bus = entry.get("parentbus")
    return Link(
        name=lost.read(entry, "ifname", _interface, CARDS) or "",
        kind=lost.read(entry, "link_type", _link_kind, "host_networking"),
        up=entry.get("operstate") not in DOWN,
        of_a_bus=None if bus is None else bus not in ("usb", "auxiliary"),
    )


def _interface(value: Any) -> str:
    """Names that the kernel allows and ethtool doesn't take for an option."""
    if not re.fullmatch(r"[^-/:\s][^/:\s]{0,14}", words(value)):
        raise ValueError
    return str(value)


def _link_kind(value: Any) -> Literal["Ethernet", "InfiniBand"]:
    return LINK_KINDS[value]


def _are_links(value: Any) -> bool:
    return value == [] or (are_records(value) and any("ifname" in record_of(e) for e in value))


def _has_a_port(entry: Mapping[str, Any]) -> bool:
    if str(entry.get("link_type")) in NO_PORTS:
        return False
    info = record_of(entry.get("linkinfo"))
    made = info.get("info_kind")
    if made and not (made == "ipoib" and "link" not in entry):
        return False
    return not re.fullmatch(r"(c\d+)?pf\d+(vf|sf)\d+", str(entry.get("phys_port_name", "")))


@parser("ethtool")
def ethtool(text: str, lost: Losses) -> int | None:
    """`ethtool INTERFACE`: the speed in Mbit/s, None without a link or an answer."""
    fields = dict(re.findall(r"^\s*(Speed|Link detected): *(.*?)\s*$", text, re.MULTILINE))
    if not fields:
        raise unknown_format("ethtool", "'Speed' or 'Link detected'")
    if fields.get("Link detected") == "no":
        return None
    return lost.read(fields, "Speed", _megabits, "host_networking's speed")


def _megabits(value: str) -> int:
    match = re.fullmatch(r"([1-9]\d{0,8})Mb/s", value)
    if not match:
        raise ValueError
    return int(match[1])


@parser("lsblk")
def lsblk(text: str, lost: Losses) -> tuple[Disk, ...]:
    """`lsblk --json --bytes --output NAME,TYPE,SIZE,ROTA,TRAN,WWN`: the machine's own disks.

    Several paths to one LUN are one disk: by the multipath device above them, else by their WWN.
    Media of the management controller (USB), floppies and network block devices don't count.
    """
    answer = json_in(text, "lsblk", "'blockdevices'", _has_devices)
    found: dict[str | int, Disk] = {}
    for number, entry in enumerate(map(record_of, answer["blockdevices"])):
        name = text_or_none(entry.get("name")) or ""
        if NO_DISK.match(name) or entry.get("tran") == "usb" or str(entry.get("type")) in OTHERS:
            continue
        lost.read(entry, "type", _disk, STORAGE)
        if not name:
            lost.lose("name", STORAGE)
        size = lost.read(entry, "size", natural, STORAGE)
        if size is None or size >= SMALLEST_DISK:
            gb = None if size is None else size / 1e9
            found.setdefault(_lun(entry) or number, Disk(gb=gb, kind=_disk_kind(entry, lost)))
    return tuple(found.values())


def _disk(value: Any) -> None:
    if value != "disk":
        raise ValueError


def _has_devices(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("blockdevices"), list)


def _lun(entry: Mapping[str, Any]) -> str | None:
    """The identity that all paths to one LUN share; None for a disk with one path."""
    children = entry.get("children")
    for child in map(record_of, children if isinstance(children, list) else ()):
        if child.get("type") == "mpath":
            return f"mpath {child.get('name')}"
    wwn = text_or_none(entry.get("wwn"))
    return f"wwn {wwn} {entry.get('size')}" if wwn and wwn.strip("0x.eui-") else None


def _disk_kind(entry: Mapping[str, Any], lost: Losses) -> str:
    if entry.get("tran") is None:
        # Virtual disks: what the hypervisor says of rotation is no property of a device.
        if "tran" not in entry:
            lost.lose("tran", "host_storage_type")
        return "disk"
    transport = lost.read(entry, "tran", words, "host_storage_type")
    if transport is None:
        return "disk"
    if transport == "nvme":
        return "NVMe SSD"
    rotates = lost.read(entry, "rota", _flag, "host_storage_type")
    if rotates is None:
        return f"{transport.upper()} disk"
    return f"{transport.upper()} {'HDD' if rotates else 'SSD'}"


def _flag(value: Any) -> bool:
    """Releases before 2.33 write "0" and "1"."""
    return {"0": False, "1": True, "false": False, "true": True}[str(value).lower()]


@parser("docker")
def docker_info(text: str, lost: Losses) -> Containers:
    """`docker info --format '{{json .}}'` of an engine that runs."""
    info = json_in(text, "docker", "'ServerVersion'", lambda value: isinstance(value, dict))
    complaints = info.get("ServerErrors")
    if complaints:
        raise UserError(f"docker has no running engine: {complaints[0]:.160}")
    version = text_or_none(info.get("ServerVersion"))
    if version is None:
        raise unknown_format("docker", "'ServerVersion' (is its engine running?)")
    return Containers(
        engine="Docker", version=version, runtimes=tuple(sorted(info.get("Runtimes") or {}))
    )


@parser("podman")
def podman_info(text: str, lost: Losses) -> Containers:
    """`podman info --format json`."""
    info = json_in(text, "podman", "'host'", lambda value: isinstance(value, dict))
    host, version = record_of(info.get("host")), record_of(info.get("version"))
    runtime = lost.read(record_of(host.get("ociRuntime")), "name", words, "podman's runtime")
    found = lost.read(version, "Version", words, "other_software_stack")
    if not host or found is None:
        raise unknown_format("podman", "'host' and 'version'")
    return Containers(engine="Podman", version=found, runtimes=(runtime,) if runtime else ())


@parser("ray")
def ray_status(text: str, lost: Losses) -> Ray:
    """`ray status`: nodes under "Active:", accelerators of all of them."""
    active = re.search(r"^Active:\n((?: .*\n)*)", text, re.MULTILINE)
    if not active:
        raise unknown_format("ray", "'Active:'")
    nodes = [int(n) for n in re.findall(r"^ (\d+) \S+", active[1], re.MULTILINE)]
    gpus = re.search(r"^\s*[\d.]+/(\d+(?:\.\d+)?) GPU\b", text, re.MULTILINE)
    return Ray(nodes=sum(nodes), gpus=float(gpus[1]) if gpus else 0.0)
