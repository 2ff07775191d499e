"""Probes one machine: asks every tool once; each missing answer is a problem by field."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from steps.base.errors import UserError
from steps.config.accelerators import Vendor
from steps.machine.probes import accelerators, devices, host
from steps.machine.probes.losses import Loss, Losses
from steps.machine.probes.tools import FailedTool, MissingTool, Parser, Run, run
from steps.machine.probes.values import Accelerator, Card, Containers, Link, Node

Value = TypeVar("Value")

AMD_SMI = ("amd-smi", "static", "--json")
AMD_SMI_USED = ("amd-smi", "metric", "--mem-usage", "--json")
ROCM_SMI = (
    *("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showdriverversion"),
    *("--showmaxpower", "--showperflevel", "--showsclkrange"),
    *("--showcomputepartition", "--showmemorypartition", "--showbus", "--json"),
)
VENDORS: Mapping[str, Vendor] = {"0x1002": "AMD", "0x10de": "NVIDIA"}
DEVICE_CLASSES = ("0x12", "0x0302", "0x0380")
"""PCI classes of accelerators: processing accelerator, 3D and other display controller. A board's
own VGA (0x0300) isn't one.
"""

PACKAGES: Mapping[str, str] = {
    "amd-smi": "amd-smi-lib",
    "rocm-smi": "rocm-smi-lib",
    "lscpu": "util-linux",
    "lsblk": "util-linux",
    "ip": "iproute2",
}
"""Where the package (Debian, Ubuntu, ROCm's repository) has another name than its tool."""


@dataclass
class Prober:
    """Asks tools and files below `root`; collects what went wrong instead of stopping."""

    run: Run = run
    root: Path = Path("/")
    problems: list[str] = field(default_factory=list)

    def ask(self, command: Sequence[str], parse: Parser[Value], fields: str) -> Value | None:
        """The tool's answer, or None and a sentence that names the fields it would have filled.

        A field that the answer lacks has a sentence of its own.
        """
        lost = Losses()
        found = self.read_as(command, parse, fields, lost)
        self.name(lost.counts)
        return found

    def read_as(
        self, command: Sequence[str], parse: Parser[Value], fields: str, lost: Losses
    ) -> Value | None:
        """The same; the caller reports single fields.

        A tool that fails may still have answered: nvidia-smi ends with status 14 when a
        device's infoROM is damaged, after it has listed all devices.
        """
        try:
            return parse(self.run(command), lost)
        except MissingTool as error:
            package = PACKAGES.get(command[0], command[0])
            self._miss(f"{error}", fields, f"install {package}, or")
        except FailedTool as error:
            return self._salvaged(error, parse, fields, lost)
        except UserError as error:
            self._refused(error, fields)
        return None

    def _salvaged(
        self, error: FailedTool, parse: Parser[Value], fields: str, lost: Losses
    ) -> Value | None:
        found, reason = None, UserError(str(error))
        try:
            found = parse(error.output, lost) if error.output.strip() else None
        except UserError as said:
            reason = said if "root" in str(said) else reason
        if found is None:
            self._refused(reason, fields)
        else:
            self._miss(f"{error}", f"something of {fields}", "")
        return found

    def read(self, path: str, parse: Parser[Value], fields: str) -> Value | None:
        """The same for a file of the system."""
        text = self.text(path)
        if not text:
            self._miss(f"{path} can't be read", fields, "")
            return None
        lost = Losses()
        try:
            return parse(text, lost)
        except UserError as error:
            self._miss(f"{error}", fields, "")
            return None
        finally:
            self.name(lost.counts)

    def name(self, losses: Iterable[Loss]) -> None:
        """One sentence for each field that was lost, however many records lack it."""
        for loss in losses:
            if "_" in loss.field:
                self._miss(str(loss), loss.field, "")
            else:
                self.problems.append(f"{loss}: {loss.field} can't be probed")

    def text(self, path: str) -> str:
        try:
            file = self.root / path.lstrip("/")
            return file.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def quietly(self, command: Sequence[str], parse: Parser[Value]) -> Value | None:
        """For what a machine may lack: its absence isn't a problem."""
        try:
            return parse(self.run(command))
        except UserError:
            return None

    def _refused(self, error: UserError, fields: str) -> None:
        root = "run it as root, or" if "root" in str(error) or "ermission" in str(error) else ""
        self._miss(f"{error}", fields, root)

    def _miss(self, reason: str, fields: str, fix: str) -> None:
        words = f"{reason}: {fields} can't be probed; {fix} set it in the system's fields"
        self.problems.append(words.replace("  ", " "))


def probe(image: str | None = None, prober: Prober | None = None) -> Node:
    """Probe this machine; with `image`, also the id of this container image.

    A failing tool raises nothing: see `Node.problems`.
    """
    asked = prober or Prober()
    cpu = asked.ask(["lscpu"], host.lscpu, "host_processor_model_name")
    memory = asked.read("/proc/meminfo", host.meminfo, "host_memory_capacity")
    modules = asked.ask(
        ["dmidecode", "--type", "memory"], host.dmidecode, "host_memory_configuration"
    )
    numa = asked.ask(["numactl", "--hardware"], host.numactl, "NUMA (in hw_notes)")
    present = vendors(asked)
    found, interconnect = _accelerators(asked, present)
    containers = _containers(asked)
    return Node(
        cpu=cpu,
        memory=memory,
        memory_modules=modules or (),
        numa=numa or (),
        accelerator_count=len(present),
        accelerators=found,
        interconnect=interconnect,
        cards=_cards(asked),
        disks=asked.ask(
            ["lsblk", "--json", "--bytes", "--output", "NAME,TYPE,SIZE,ROTA,TRAN,WWN"],
            devices.lsblk,
            "host_storage_capacity",
        )
        or (),
        operating_system=asked.read("/etc/os-release", host.os_release, "operating_system"),
        kernel=platform.release(),
        product=_product(asked),
        rocm=asked.text("/opt/rocm/.info/version") or None,
        containers=containers,
        ray=asked.quietly(["ray", "status"], devices.ray_status),
        image=_image(asked, image, containers),
        problems=tuple(asked.problems),
    )


def _accelerators(
    asked: Prober, present: Sequence[Vendor]
) -> tuple[tuple[Accelerator, ...], str | None]:
    """Accelerators and what connects them; asks only the tools of a vendor that is present."""
    if not present:
        return (), None
    if len(set(present)) > 1:
        asked.problems.append(
            "accelerators of AMD and NVIDIA in one machine: accelerator_model_name can't be "
            "probed; set it in the system's fields"
        )
        return (), None
    if present[0] == "NVIDIA":
        query = f"--query-gpu={accelerators.NVIDIA_QUERY}"
        found = asked.ask(
            ["nvidia-smi", query, "--format=csv"],
            accelerators.nvidia_smi,
            "accelerator_model_name",
        )
        return found or (), None
    return _amd(asked)


def of_vendor(vendor: Vendor, asked: Prober) -> tuple[Accelerator, ...]:
    """This machine's accelerators as the vendor's tools list them."""
    return _accelerators(asked, [vendor])[0]


def _amd(asked: Prober) -> tuple[tuple[Accelerator, ...], str | None]:
    """amd-smi first; rocm-smi adds partitions, performance level, clocks and memory in use, which
    amd-smi says by another command."""
    lost, more = Losses(), Losses()
    by_amd = asked.read_as(AMD_SMI, accelerators.amd_smi, "accelerator_model_name", lost)
    modes = "partition and performance level of accelerators"
    by_rocm = asked.read_as(ROCM_SMI, accelerators.rocm_smi, modes, more)
    topology = asked.ask(
        ["rocm-smi", "--showtopotype", "--json"],
        accelerators.rocm_topology,
        "accelerator_interconnect",
    )
    try:
        found = accelerators.combined(by_amd or (), by_rocm or ())
    except UserError as error:
        asked.problems.append(str(error))
        found = by_amd or ()
    if any(one.used_mib is None for one in found):
        used = asked.quietly(AMD_SMI_USED, accelerators.amd_smi_used)
        found = accelerators.with_used(found, used or ())
    if not found:
        found = asked.quietly(["rocminfo"], accelerators.rocminfo) or ()
    asked.name(accelerators.unsaid((*lost.counts, *more.counts), found))
    if any(one.model is None for one in found):
        known = ", ".join(filter(None, {one.architecture for one in found})) or "unknown"
        asked.problems.append(
            f"no tool names the accelerators' model (architecture {known}): "
            "accelerator_model_name can't be probed; set it in the system's fields"
        )
    return found, topology


def vendors(asked: Prober) -> list[Vendor]:
    """The vendor of every accelerator on the PCI bus, whether or not a driver is loaded."""
    found = []
    for device in sorted((asked.root / "sys/bus/pci/devices").glob("*")):
        vendor = VENDORS.get(asked.text(f"/sys/bus/pci/devices/{device.name}/vendor"))
        kind = asked.text(f"/sys/bus/pci/devices/{device.name}/class")
        if vendor and kind.startswith(DEVICE_CLASSES):
            found.append(vendor)
    return found


def _cards(asked: Prober) -> tuple[Card, ...]:
    command = ["ip", "-details", "-json", "link"]
    links = asked.ask(command, devices.ip_link, "host_network_card_count") or ()
    cards = []
    for link in links:
        if not _is_card(asked, link):
            continue
        speed = None
        if link.up and link.name:
            speed = asked.ask(["ethtool", link.name], devices.ethtool, "host_networking's speed")
        cards.append(Card(kind=link.kind, speed_mbit=speed))
    if links and not cards:
        asked.problems.append(
            "ip lists no interface of a bus: host_network_card_count can't be probed; set it in "
            "the system's fields"
        )
    # One missing ethtool is one problem, however many interfaces there are.
    asked.problems[:] = list(dict.fromkeys(asked.problems))
    return tuple(cards)


def _is_card(asked: Prober, link: Link) -> bool:
    """Virtual functions of a card aren't cards; the kernel links each with its function."""
    if not link.name:
        return bool(link.of_a_bus)
    device = asked.root / "sys/class/net" / link.name / "device"
    there = device.exists() if link.of_a_bus is None else link.of_a_bus
    return there and not (device / "physfn").exists()


def _containers(asked: Prober) -> Containers | None:
    """Docker, else Podman; Docker's complaint counts only where neither answers."""
    before = len(asked.problems)
    docker = ["docker", "info", "--format", "{{json .}}"]
    found = asked.ask(docker, devices.docker_info, "the container engine (other_software_stack)")
    if found is None:
        found = asked.quietly(["podman", "info", "--format", "json"], devices.podman_info)
        if found:
            del asked.problems[before:]
    return found


def _image(asked: Prober, name: str | None, containers: Containers | None) -> str | None:
    if name is None:
        return None
    engine = (containers.engine if containers else "Docker").lower()
    command = [engine, "image", "inspect", "--format", "{{.Id}}", name]
    identity = asked.ask(command, _stripped, f"the id of image {name}")
    return f"{name} {identity}" if identity else None


def _stripped(text: str, lost: Losses | None = None) -> str:
    return text.strip()


def _product(asked: Prober) -> str | None:
    """Maker and model of the server, world-readable; boards without them have a placeholder."""
    words = [asked.text(f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")]
    real = [word for word in words if word and "filled by" not in word.lower()]
    return " ".join(real) or None
