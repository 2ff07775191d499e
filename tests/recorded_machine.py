"""Machines made of `tests/recorded`: what their tools print and what their files hold."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from steps.base.errors import UserError
from steps.machine.probes.machine import Prober, probe
from steps.machine.probes.tools import MissingTool
from steps.machine.probes.values import Node
from tests.conftest import ROOT

RECORDED = ROOT / "tests/recorded"
IMAGE = "rocm/mlperf-inference:submission_5.1-llama2_70b"

TOOLS: Mapping[str, str] = {
    "lscpu": "lscpu-epyc-9575f.txt",
    "dmidecode": "dmidecode-24x96gb.txt",
    "numactl": "numactl-2-nodes.txt",
    "amd-smi static": "amd-smi-static-8xmi325x.json",
    "rocm-smi --showproductname": "rocm-smi-8xmi325x.json",
    "rocm-smi --showtopotype": "rocm-smi-topology-xgmi.json",
    "ip": "ip-link.json",
    "ethtool": "ethtool-400g.txt",
    "lsblk": "lsblk.json",
    "docker info": "docker-info.json",
}
"""Eight MI325X; the longest key that a command starts with says what it prints."""

FILES: Mapping[str, str] = {
    "etc/os-release": (RECORDED / "os-release-ubuntu.txt").read_text(encoding="utf-8"),
    "proc/meminfo": (RECORDED / "meminfo-2304gib.txt").read_text(encoding="utf-8"),
    "opt/rocm/.info/version": "6.4.1-83\n",
    "sys/class/dmi/id/sys_vendor": "Quanta Cloud Technology\n",
    "sys/class/dmi/id/product_name": "QuantaGrid D74A-7U\n",
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x1a03\n",  # the board's own VGA
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
    **{
        f"sys/bus/pci/devices/0000:{bus}5:00.0/{name}": text
        for bus in range(1, 9)
        for name, text in (("vendor", "0x1002\n"), ("class", "0x120000\n"))
    },
}


def printing(tools: Mapping[str, str]) -> Callable[[Sequence[str]], str]:
    """Stands in for steps.machine.probes.tools.run: recorded outputs, nothing else is installed.

    An output that starts with "!" is how the tool fails.
    """

    def run(command: Sequence[str]) -> str:
        if list(command[1:3]) == ["image", "inspect"]:
            return "sha256:0f1e2d3c\n"
        known = [key for key in tools if " ".join(command).startswith(key)]
        if not known:
            raise MissingTool(f"{command[0]} is not installed")
        name = tools[max(known, key=len)]
        if name.startswith("!"):
            raise UserError(f"{command[0]} {name[1:]}")
        return (RECORDED / name).read_text(encoding="utf-8")

    return run


def machine(
    folder: Path,
    tools: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    image: str | None = None,
    without: Sequence[str] = (),
) -> Node:
    """The MI325X machine, with some tools and files changed or taken away, probed."""
    for path, text in {**FILES, **(files or {})}.items():
        if path not in without:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    outputs = {key: name for key, name in {**TOOLS, **(tools or {})}.items() if key not in without}
    return probe(image, Prober(run=printing(outputs), root=folder))


MI300X: Mapping[str, str] = {
    "lscpu": "lscpu-epyc-9534.txt",
    "amd-smi static": "amd-smi-static-8xmi300x.json",
    "rocm-smi --showproductname": "rocm-smi-8xmi300x.json",
    "dmidecode": "dmidecode-half-filled.txt",
}
MI355X: Mapping[str, str] = {
    "amd-smi static": "amd-smi-static-8xmi355x.json",
    "rocm-smi --showproductname": "rocm-smi-8xmi355x.json",
}
