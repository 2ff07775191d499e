"""The system description: what can be probed, and what the configuration says."""

import json
import platform
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from steps.command import main
from steps.console import Console
from steps.record import Workspace
from steps.schema import DescribeConfig

MISSING = "N/A"


def step(
    config: DescribeConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes system.json, every value text; the result says where each field comes from."""
    fields: dict[str, dict[str, str]] = {}
    for name in config.required:
        probed = PROBES[name]() if name in PROBES else ""
        if name in config.fields:
            fields[name] = {"value": config.fields[name], "origin": "configured"}
        elif probed:
            fields[name] = {"value": probed, "origin": "probed"}
        else:
            fields[name] = {"value": MISSING, "origin": "missing"}
    for name, value in config.fields.items():
        fields.setdefault(name, {"value": value, "origin": "configured"})
    system = {name: entry["value"] for name, entry in fields.items()}
    text = json.dumps(system, indent=2, ensure_ascii=False) + "\n"
    (workspace.directory / "system.json").write_text(text, encoding="utf-8")
    workspace.result = {"fields": fields}


def cpu_info() -> list[dict[str, str]]:
    """/proc/cpuinfo, one dictionary per logical processor."""
    blocks = _text("/proc/cpuinfo").strip().split("\n\n")
    return [dict(re.findall(r"^([^\t:]+)\s*:[ \t]*(.*)$", block, re.MULTILINE)) for block in blocks]


def _processor_model() -> str:
    models = {block.get("model name", "").strip() for block in cpu_info()}
    return ", ".join(sorted(models - {""})) or platform.processor()


def _sockets() -> str:
    return str(len({block.get("physical id", "0") for block in cpu_info()}))


def _cores_per_processor() -> str:
    cores = {
        (b.get("physical id", "0"), b.get("core id", str(i))) for i, b in enumerate(cpu_info())
    }
    return str(max(1, len(cores) // int(_sockets())))


def _frequency() -> str:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    return f"{int(path.read_text()) // 1000} MHz" if path.is_file() else ""


def _caches() -> str:
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_text(index / name).strip() for name in ("level", "type", "size"))
        if size:
            found.append(
                f"L{level}{kind[0].lower() if kind in ('Data', 'Instruction') else ''} {size}"
            )
    return ", ".join(found)


def _memory() -> str:
    match = re.search(r"^MemTotal:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    return f"{round(int(match.group(1)) / 2**20)} GB" if match else ""


def _storage() -> str:
    return f"{round(shutil.disk_usage('/').total / 2**30)} GB"


def _operating_system() -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text("/etc/os-release"), re.MULTILINE)
    return match.group(1) if match else platform.system()


def _network_cards() -> str:
    # Only what has a device behind it: no loopback, bridge or tunnel. Names stay here.
    return str(len(list(Path("/sys/class/net").glob("*/device"))))


def _software() -> str:
    return f"Linux {platform.release()}, Python {platform.python_version()}"


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


PROBES: Mapping[str, Callable[[], str]] = {
    "host_processor_model_name": _processor_model,
    "host_processors_per_node": _sockets,
    "host_processor_core_count": _cores_per_processor,
    "host_processor_frequency": _frequency,
    "host_processor_caches": _caches,
    "host_memory_capacity": _memory,
    "host_storage_capacity": _storage,
    "operating_system": _operating_system,
    "host_network_card_count": _network_cards,
    "other_software_stack": _software,
}
"""Machine facts only; nothing that names the host or its addresses."""


if __name__ == "__main__":
    main("describe", DescribeConfig, step)
