"""Parsers of tool output: on outputs after the tools' documentation, and on anything at all."""

import contextlib
import json
import os
import signal
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.machine.probes import accelerators, devices, host, tools
from steps.machine.probes.losses import Losses
from steps.machine.probes.machine import Prober, of_vendor, probe
from steps.machine.probes.tools import MissingTool
from steps.machine.probes.values import Accelerator
from tests.conftest import ROOT

RECORDED = ROOT / "tests/recorded"

PARSERS: dict[str, Callable[[str], Any]] = {
    "lscpu-epyc-9575f.txt": host.lscpu,
    "meminfo-2304gib.txt": host.meminfo,
    "dmidecode-24x96gb.txt": host.dmidecode,
    "numactl-2-nodes.txt": host.numactl,
    "os-release-ubuntu.txt": host.os_release,
    "amd-smi-static-8xmi300x.json": accelerators.amd_smi,
    "amd-smi-static-8xmi355x.json": accelerators.amd_smi,
    "amd-smi-static-warning.txt": accelerators.amd_smi,
    "amd-smi-mem-usage-8xmi300x.json": accelerators.amd_smi_used,
    "rocm-smi-errors.txt": accelerators.rocm_smi,
    "nvidia-smi-inforom.txt": accelerators.nvidia_smi,
    "dmidecode-flash.txt": host.dmidecode,
    "lscpu-arm-clusters.txt": host.lscpu,
    "ip-link-bond.json": devices.ip_link,
    "lsblk-multipath.json": devices.lsblk,
    "rocm-smi-8xmi300x.json": accelerators.rocm_smi,
    "rocm-smi-topology-xgmi.json": accelerators.rocm_topology,
    "rocminfo-1xmi300x.txt": accelerators.rocminfo,
    "nvidia-smi-8xh100.csv": accelerators.nvidia_smi,
    "ip-link.json": devices.ip_link,
    "ethtool-400g.txt": devices.ethtool,
    "lsblk.json": devices.lsblk,
    "docker-info.json": devices.docker_info,
    "podman-info.json": devices.podman_info,
    "ray-status.txt": devices.ray_status,
}
"""One well-formed output for every parser."""


def recorded(name: str) -> str:
    return (RECORDED / name).read_text(encoding="utf-8")


# ---- what they read -----------------------------------------------------------------------------


def test_processor() -> None:
    cpu = host.lscpu(recorded("lscpu-epyc-9575f.txt"))
    assert (cpu.model, cpu.sockets, cpu.cores_per_socket) == (
        "AMD EPYC 9575F 64-Core Processor",
        2,
        64,
    )
    assert cpu.max_mhz == pytest.approx(5008.0068)
    assert cpu.caches.endswith("L2 128 MiB (128 instances), L3 512 MiB (16 instances)")


def test_memory_and_its_modules() -> None:
    memory = host.meminfo(recorded("meminfo-2304gib.txt"))
    assert (memory.total_kib, memory.huge_pages) == (2377654272, 0)
    modules = host.dmidecode(recorded("dmidecode-24x96gb.txt"))
    assert len(modules) == 24 and sum(module.gib for module in modules) == 2304
    assert {(m.maker, m.part, m.kind) for m in modules} == {
        ("Samsung", "M321RYGA0PB0-CWMXJ", "DDR5")
    }
    assert len(host.dmidecode(recorded("dmidecode-half-filled.txt"))) == 12


def test_dmidecode_of_a_user_names_root() -> None:
    with pytest.raises(UserError, match="only as root"):
        host.dmidecode(recorded("dmidecode-not-root.txt"))


def test_numa_nodes() -> None:
    nodes = host.numactl(recorded("numactl-2-nodes.txt"))
    assert [(node.cpus, node.memory_mb) for node in nodes] == [(128, 1160762), (128, 1161078)]


@pytest.mark.parametrize(
    ("name", "model", "gib", "kind", "watts", "driver", "architecture", "mode", "pstate"),
    [
        ("8xmi300x", "MI300X", 192, "HBM3", 750, "6.10.5", "gfx942", "SPX", 1),
        ("8xmi325x", "MI325X", 256, "HBM3E", 1000, "6.10.5", "gfx942", "SPX", 0),
        # The newer form: "gpu_data" around the list, limits below "ppt0", no partition.
        ("8xmi355x", "MI355X", 288, "HBM3E", 1400, "6.14.14", "gfx950", None, 0),
    ],
)
def test_amd_smi_in_both_forms(
    name: str,
    model: str,
    gib: int,
    kind: str,
    watts: int,
    driver: str,
    architecture: str,
    mode: str | None,
    pstate: int,
) -> None:
    found = accelerators.amd_smi(recorded(f"amd-smi-static-{name}.json"))
    assert [one.bus for one in found] == [f"0000:{n}5:00.0" for n in range(8)]
    assert len({one.model_copy(update={"bus": None}) for one in found}) == 1
    one = found[0]
    assert one.model == f"AMD Instinct {model}"
    assert one.memory_mib is not None and round(one.memory_mib / 1024) == gib
    assert (one.memory_type, one.driver) == (kind, driver)
    assert (one.power_limit_w, one.power_cap_w) == (watts, watts)
    assert (one.architecture, one.compute_partition, one.soc_pstate) == (
        architecture,
        mode,
        pstate,
    )
    assert one.pcie == "PCIe Gen5 x16"


def test_rocm_smi_knows_partitions_clock_and_performance_level() -> None:
    one = accelerators.rocm_smi(recorded("rocm-smi-8xmi300x.json"))[0]
    assert (one.compute_partition, one.memory_partition) == ("SPX", "NPS1")
    assert (one.performance_level, one.max_clock_mhz) == ("perf_determinism", 1400)
    assert (one.power_limit_w, one.power_cap_w) == (None, 750)
    cards = accelerators.rocm_smi(recorded("rocm-smi-64xmi325x-cpx.json"))
    assert len(cards) == 64 and {card.compute_partition for card in cards} == {"CPX"}


def test_rocm_smi_after_a_warning_and_without_a_name_is_told_by_its_power() -> None:
    (one,) = accelerators.rocm_smi(recorded("rocm-smi-warning.json"))
    assert one.model == "AMD Instinct MI300X"


def test_two_tools_complete_each_other_and_may_not_disagree() -> None:
    by_amd = accelerators.amd_smi(recorded("amd-smi-static-8xmi355x.json"))
    by_rocm = accelerators.rocm_smi(recorded("rocm-smi-8xmi355x.json"))
    one = accelerators.combined(by_amd, by_rocm)[0]
    assert (one.memory_type, one.compute_partition, one.max_clock_mhz) == ("HBM3E", "SPX", 2400)
    assert accelerators.combined((), by_rocm) == by_rocm
    with pytest.raises(UserError, match="amd-smi counts 8 accelerators and rocm-smi 64"):
        accelerators.combined(
            by_amd, accelerators.rocm_smi(recorded("rocm-smi-64xmi325x-cpx.json"))
        )


def test_topology_rocminfo_and_nvidia_smi() -> None:
    assert accelerators.rocm_topology(recorded("rocm-smi-topology-xgmi.json")) == "XGMI"
    assert accelerators.rocm_topology("{}") is None
    assert accelerators.rocminfo(recorded("rocminfo-1xmi300x.txt")) == (
        Accelerator(
            vendor="AMD", model="AMD Instinct MI300X", architecture="gfx942", max_clock_mhz=2100
        ),
    )
    found = accelerators.nvidia_smi(recorded("nvidia-smi-8xh100.csv"))
    assert len(found) == 8
    assert found[0] == Accelerator(
        vendor="NVIDIA",
        model="NVIDIA H100 80GB HBM3",
        memory_mib=81559,
        architecture="sm_90",
        driver="550.54.15",
        pcie="PCIe Gen5 x16",
        power_limit_w=700.0,
        power_cap_w=700.0,
        max_clock_mhz=1980,
        bus="0000:1b:00.0",
        used_mib=1,
    )
    (unsure,) = accelerators.nvidia_smi(recorded("nvidia-smi-na.csv"))
    assert (unsure.memory_mib, unsure.pcie, unsure.power_limit_w) == (None, None, None)
    assert accelerators.nvidia_smi("No devices were found\n") == ()


def test_memory_in_use_is_amd_smis_where_there_is_no_rocm_smi(tmp_path: Path) -> None:
    """ROCm 7's packages have no rocm-smi; what else a device lacks stays as it is."""
    said = json.loads(recorded("amd-smi-mem-usage-8xmi300x.json"))
    said[3]["mem_usage"]["used_vram"] = "N/A"
    tools = {
        "static": recorded("amd-smi-static-8xmi300x.json"),
        "metric": json.dumps({"gpu_data": said}),
    }

    def run(command: Sequence[str]) -> str:
        if command[0] == "amd-smi":
            return tools[command[1]]
        raise MissingTool(f"{command[0]} is not installed")

    def used() -> list[int | None]:
        return [one.used_mib for one in of_vendor("AMD", Prober(run=run, root=tmp_path))]

    assert used() == [283, 283, 283, None, 283, 283, 284, 283]
    tools["metric"] = recorded("amd-smi-mem-usage-8xmi300x.json")
    assert used() == [283] * 6 + [284, 283]
    tools["metric"] = json.dumps(said[:7])  # of other devices than these
    assert used() == [None] * 8
    tools["metric"] = "amd-smi: error: unrecognized arguments"
    assert used() == [None] * 8


def test_network_leaves_out_what_is_no_card() -> None:
    links = [link for link in devices.ip_link(recorded("ip-link.json")) if link.of_a_bus]
    assert [link.kind for link in links].count("Ethernet") == 10
    assert [link.name for link in links if link.kind == "InfiniBand"] == ["ib0"]
    assert [link.name for link in links if not link.up] == ["eno2"]
    assert devices.ethtool(recorded("ethtool-400g.txt")) == 400_000
    assert devices.ethtool(recorded("ethtool-no-link.txt")) is None


def test_disks_engines_and_ray() -> None:
    disks = devices.lsblk(recorded("lsblk.json"))
    assert [(round(disk.gb), disk.kind) for disk in disks] == [
        (480, "SATA SSD"),
        (7682, "NVMe SSD"),
        (7682, "NVMe SSD"),
    ]
    docker = devices.docker_info(recorded("docker-info.json"))
    assert (docker.version, docker.runtimes[0]) == ("27.5.1", "amd")
    with pytest.raises(UserError, match="no running engine: Cannot connect"):
        devices.docker_info(recorded("docker-info-no-engine.json"))
    assert devices.podman_info(recorded("podman-info.json")).runtimes == ("crun",)
    ray = devices.ray_status(recorded("ray-status.txt"))
    assert (ray.nodes, ray.gpus) == (6, 48.0)


# ---- what they make of oddities ------------------------------------------------------------------


def lost_of(parse: Callable[..., Any], name: str) -> tuple[Any, list[str]]:
    lost = Losses()
    found = parse(recorded(name), lost)
    return found, [f"{loss} ({count})" for loss, count in lost.counts.items()]


@pytest.mark.parametrize("tool", ["amd-smi-static", "rocm-smi"])
def test_partitions_of_a_card_share_what_its_first_says(tool: str) -> None:
    parse = accelerators.amd_smi if tool == "amd-smi-static" else accelerators.rocm_smi
    found, said = lost_of(parse, f"{tool}-64xmi300x-cpx.json")
    assert len(found) == 64
    assert {(one.compute_partition, one.memory_partition) for one in found} == {("CPX", "NPS1")}
    assert {one.power_cap_w for one in found} == {750}
    # What the first makes good is no problem of the machine.
    losses = Losses()
    parse(recorded(f"{tool}-64xmi300x-cpx.json"), losses)
    assert said and accelerators.unsaid(losses.counts, found) == [
        loss
        for loss in losses.counts
        if loss.field
        in {accelerators.FIELDS.get(name) for name, value in found[0] if value is None}
    ]


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("0000:05:00.0", "0000:05:00.0"),
        ("00000000:1B:00.0", "0000:1b:00.0"),
        ("0002:c5:00.3", "0002:c5:00.3"),
        ("N/A", None),
        (None, None),
        ("05:00.0", None),
    ],
)
def test_bus_addresses_are_written_in_one_way(said: str | None, address: str | None) -> None:
    assert accelerators.bus_address(said) == address


def test_whole_cards_that_say_nothing_are_not_completed_by_their_neighbour() -> None:
    cards = json.loads(recorded("rocm-smi-8xmi300x.json"))
    cards["card1"]["Compute Partition"] = "N/A"
    found = accelerators.rocm_smi(json.dumps(cards))
    assert [one.compute_partition for one in found[:3]] == ["SPX", None, "SPX"]
    for card in ("card0", "card1"):
        cards[card]["Compute Partition"] = "DPX" if card == "card0" else "N/A"
    cards["card2"]["Compute Partition"] = "N/A"
    found = accelerators.rocm_smi(json.dumps(cards))
    assert [one.compute_partition for one in found[:4]] == ["DPX", "DPX", None, "SPX"]


def test_a_warning_before_the_answer_costs_nothing() -> None:
    found, said = lost_of(accelerators.amd_smi, "amd-smi-static-warning.txt")
    assert len(found) == 2 and found[0].memory_type == "HBM3" and said == []
    found, said = lost_of(accelerators.rocm_smi, "rocm-smi-errors.txt")
    assert [one.power_cap_w for one in found] == [None, 750.0]
    assert said == [
        "rocm-smi doesn't say max graphics package power (w) (1)",
        "rocm-smi says '0x74a1' of card series (1)",
    ]


def test_nvidia_smi_with_a_damaged_device_lists_the_others() -> None:
    found, said = lost_of(accelerators.nvidia_smi, "nvidia-smi-inforom.txt")
    assert len(found) == 4 and {one.memory_mib for one in found} == {81559}
    assert (found[3].power_limit_w, found[3].power_cap_w) == (None, None)
    assert said[:2] == [
        "nvidia-smi says 'Unable to determine the device handle for GPU0000:C9:00.0: "
        "Unknown Error' (1)",
        "nvidia-smi says 'WARNING: infoROM is corrupted at gpu 0000:B3:00.0' (1)",
    ]


def test_processors_of_arm_servers_and_of_newer_tables() -> None:
    cpu, said = lost_of(host.lscpu, "lscpu-arm-clusters.txt")
    assert (cpu.model, cpu.sockets, cpu.threads_per_core) == ("Kunpeng-920", None, 1)
    assert said == ["lscpu doesn't say Socket(s) (1)", "lscpu doesn't say Core(s) per socket (1)"]
    cpu, said = lost_of(host.lscpu, "lscpu-arm-no-name.txt")
    assert (cpu.model, cpu.max_mhz) == (None, 3000.0)
    assert "lscpu doesn't say Model name (1)" in said
    cpu, said = lost_of(host.lscpu, "lscpu-sections.txt")
    assert (cpu.sockets, cpu.cores_per_socket) == (2, 96) and said == []
    assert cpu.caches.endswith("L3 768 MiB (24 instances)")


def test_firmware_and_empty_slots_are_no_memory() -> None:
    modules, said = lost_of(host.dmidecode, "dmidecode-flash.txt")
    assert [module.gib for module in modules] == [64] * 4 and said == []
    modules, said = lost_of(host.dmidecode, "dmidecode-qemu.txt")
    assert [(m.gib, m.maker, m.part) for m in modules] == [(16, "QEMU", "")] * 2
    assert said == ["dmidecode doesn't say Part Number (2)"]


def test_a_numa_node_of_memory_alone_and_one_of_unknown_size() -> None:
    nodes, said = lost_of(host.numactl, "numactl-cxl.txt")
    assert [(node.cpus, node.memory_mb) for node in nodes] == [
        (64, 1160762),
        (64, None),
        (0, 262144),
    ]
    assert said == ["numactl says '<not available>' of size (1)"]
    assert host.numactl("No NUMA available on this system\n") == ()


def test_ports_of_bonds_and_bridges_are_cards_and_bonds_are_none() -> None:
    links, said = lost_of(devices.ip_link, "ip-link-bond.json")
    cards = [link for link in links if link.of_a_bus]
    assert [link.name for link in cards] == [
        *("ens10f0np0", "ens10f1np1", "ens1np0", "ens2np0", "ib0"),
    ]
    assert [link.up for link in cards] == [True, True, True, False, True]
    assert said == []


def test_releases_of_ip_that_name_no_bus_leave_it_to_the_kernel(tmp_path: Path) -> None:
    older = [
        {key: value for key, value in link.items() if not key.startswith("parent")}
        for link in json.loads(recorded("ip-link-bond.json"))
    ]
    for name in ("ens10f0np0", "ens10f1np1", "ens1np0"):
        (tmp_path / f"sys/class/net/{name}/device").mkdir(parents=True)
    (tmp_path / "sys/class/net/ens1np0/device/physfn").mkdir()

    def run(command: Sequence[str]) -> str:
        texts = {"ip": json.dumps(older), "ethtool": recorded("ethtool-400g.txt")}
        if command[0] not in texts:
            raise tools.MissingTool(f"{command[0]} is not installed")
        return texts[command[0]]

    node = probe(prober=Prober(run=run, root=tmp_path))
    assert [card.speed_mbit for card in node.cards] == [400_000, 400_000]


def test_one_disk_for_each_lun_and_none_for_media() -> None:
    disks, said = lost_of(devices.lsblk, "lsblk-multipath.json")
    assert [(round(disk.gb), disk.kind) for disk in disks] == [
        *((480, "SATA SSD"), (15363, "FC SSD"), (15363, "FC SSD"), (7682, "SAS SSD")),
        *((3841, "NVMe SSD"), (3841, "NVMe SSD")),
    ]
    assert said == []
    disks, said = lost_of(devices.lsblk, "lsblk-2.31.json")
    assert [disk.kind for disk in disks] == ["SAS SSD", "SAS HDD", "NVMe SSD"] and said == []


def test_a_tool_that_fails_after_its_answer_is_read_and_named(tmp_path: Path) -> None:
    def run(command: Sequence[str]) -> str:
        if command[0] == "nvidia-smi":
            raise tools.FailedTool(
                "nvidia-smi fails with status 14", recorded("nvidia-smi-8xh100.csv")
            )
        if command[0] == "lscpu":
            raise tools.FailedTool("lscpu fails with status 1: no answer", "")
        raise tools.MissingTool(f"{command[0]} is not installed")

    device = tmp_path / "sys/bus/pci/devices/0000:17:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    node = probe(prober=Prober(run=run, root=tmp_path))
    assert len(node.accelerators) == 8 and node.cpu is None
    said = "\n".join(node.problems)
    assert "nvidia-smi fails with status 14: something of accelerator_model_name" in said
    assert "lscpu fails with status 1: no answer: host_processor_model_name can't be" in said


# ---- what they do with anything else ------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["gpu_data", "asic"]), inner)
    ),
    max_leaves=12,
)


def only_user_errors(parse: Callable[[str], Any], text: str) -> None:
    try:
        parse(text)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", PARSERS)
@given(text=st.text() | JSON.map(json.dumps))
def test_arbitrary_text_is_read_or_refused_in_one_sentence(name: str, text: str) -> None:
    only_user_errors(PARSERS[name], text)


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_a_damaged_output_is_read_or_refused_in_one_sentence(
    name: str, data: st.DataObject
) -> None:
    """A stretch of the well-formed output is replaced: most damage still reaches deep."""
    text = recorded(name)
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, min(len(text), begin + 40)))
    patch = data.draw(st.text(max_size=6) | st.sampled_from(['"N/A"', "null", "-1", "[]", "{}"]))
    only_user_errors(PARSERS[name], text[:begin] + patch + text[end:])


@pytest.mark.parametrize("name", [name for name in PARSERS if name.endswith(".json")])
@given(data=st.data())
def test_a_value_of_another_type_is_read_or_refused_in_one_sentence(
    name: str, data: st.DataObject
) -> None:
    tree = json.loads(recorded(name))
    place = tree
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = inner
    only_user_errors(PARSERS[name], json.dumps(tree))


@pytest.mark.parametrize("name", PARSERS)
def test_an_output_without_what_is_looked_for_names_the_tool(name: str) -> None:
    tool = name.split(".")[0].split("-")[0]
    tool = {"meminfo": "/proc/meminfo", "os": "/etc/os-release"}.get(tool, tool)
    with pytest.raises(UserError) as caught:
        PARSERS[name]("usage: something else altogether\n")
    assert tool in str(caught.value) and "format" in str(caught.value)


# ---- calling tools ------------------------------------------------------------------------------


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs a shell script as the tool `probe-me`."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def install(script: str) -> None:
        path = tmp_path / "probe-me"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return install


def test_a_tool_speaks_english_and_gets_no_input(tool: Callable[[str], None]) -> None:
    tool('echo "$LC_ALL $1"; cat')
    assert tools.run(["probe-me", "--json"]) == "C --json\n"


def test_a_tool_that_hangs_is_ended_with_its_children(tool: Callable[[str], None]) -> None:
    tool("sleep 60 & sleep 60")
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"probe-me gave no answer in 0\.3 s"):
        tools.run(["probe-me"], limit_s=0.3)
    assert time.monotonic() - begun < 10


def test_a_pipe_that_stays_open_after_the_kill_blocks_nobody(
    tool: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tools, "END_S", 0.3)
    left = tmp_path / "left"
    tool(f"setsid sleep 20 & echo $! >{left}; sleep 60")
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"probe-me gave no answer in 0\.3 s"):
        tools.run(["probe-me"], limit_s=0.3)
    assert time.monotonic() - begun < 10
    with contextlib.suppress(ProcessLookupError):  # the kill came before setsid
        os.kill(int(left.read_text()), signal.SIGKILL)


def test_a_tool_that_fails_or_is_missing_is_named(tool: Callable[[str], None]) -> None:
    tool("echo first >&2; echo 'Unable to open driver' >&2; exit 3")
    with pytest.raises(UserError, match="probe-me fails with status 3: Unable to open driver"):
        tools.run(["probe-me"])
    with pytest.raises(tools.MissingTool, match="surely-absent is not installed"):
        tools.run(["surely-absent"])
