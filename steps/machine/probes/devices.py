"""Network interfaces, disks, container engines, Ray."""

import json
import re

from steps.base.errors import UserError
from steps.machine.probes.tools import parser, text_or_none, unknown_format
from steps.machine.probes.values import Containers, Disk, Link, Ray

LINK_KINDS = {"ether": "Ethernet", "infiniband": "InfiniBand"}


@parser("ip")
def ip_link(text: str) -> tuple[Link, ...]:
    """`ip -details -json link`: interfaces of a bus; bridges, tunnels and bonds are left out."""
    found = []
    for entry in json.loads(text):
        kind = LINK_KINDS.get(entry.get("link_type", ""))
        if kind and entry.get("parentbus") and "linkinfo" not in entry:
            up = entry.get("operstate") == "UP"
            found.append(Link.model_validate({"name": entry["ifname"], "kind": kind, "up": up}))
    return tuple(found)


@parser("ethtool")
def ethtool(text: str) -> int | None:
    """`ethtool INTERFACE`: the speed in Mbit/s, None if it has no link or doesn't say."""
    match = re.search(r"^\s*Speed: (\d+)Mb/s\s*$", text, re.MULTILINE)
    if match:
        return int(match[1]) or None
    if not re.search(r"^\s*Link detected: ", text, re.MULTILINE):
        raise unknown_format("ethtool", "'Speed' or 'Link detected'")
    return None


@parser("lsblk")
def lsblk(text: str) -> tuple[Disk, ...]:
    """`lsblk --json --bytes --output NAME,TYPE,SIZE,ROTA,TRAN`: whole disks that aren't empty."""
    found = []
    for entry in json.loads(text)["blockdevices"]:
        size = int(entry["size"] or 0)
        if entry["type"] == "disk" and size > 0 and not entry["name"].startswith("zram"):
            found.append(Disk(gb=size / 1e9, kind=_disk_kind(entry.get("tran"), entry["rota"])))
    return tuple(found)


def _disk_kind(transport: str | None, rotates: bool | str) -> str:
    if transport is None:
        # Virtual disks: what the hypervisor says of rotation is no property of a device.
        return "disk"
    if transport == "nvme":
        return "NVMe SSD"
    return f"{transport.upper()} {'HDD' if rotates in (True, '1') else 'SSD'}"


@parser("docker")
def docker_info(text: str) -> Containers:
    """`docker info --format '{{json .}}'` of an engine that runs."""
    info = json.loads(text)
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
def podman_info(text: str) -> Containers:
    """`podman info --format json`."""
    info = json.loads(text)
    runtime = info["host"]["ociRuntime"]["name"]
    return Containers(engine="Podman", version=info["version"]["Version"], runtimes=(runtime,))


@parser("ray")
def ray_status(text: str) -> Ray:
    """`ray status`: nodes under "Active:", accelerators of all of them."""
    active = re.search(r"^Active:\n((?: .*\n)*)", text, re.MULTILINE)
    if not active:
        raise unknown_format("ray", "'Active:'")
    nodes = [int(n) for n in re.findall(r"^ (\d+) \S+", active[1], re.MULTILINE)]
    gpus = re.search(r"^\s*[\d.]+/([\d.]+) GPU\b", text, re.MULTILINE)
    return Ray(nodes=sum(nodes), gpus=float(gpus[1]) if gpus else 0.0)
