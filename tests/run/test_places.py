"""Which accelerators, CPUs, memory and directories each engine of a node gets."""

import ctypes
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.config.engine import Placement, Seat
from steps.config.resolved import Resolved
from steps.config.run_results import EngineReport
from steps.machine.probes.machine import Prober
from steps.machine.probes.tools import MissingTool
from steps.prepare.samples import Samples
from steps.run.engines import accelerators, caches, wire
from steps.run.engines.pinning import Place, place_of
from steps.run.sut.fleet import Fleet
from steps.run.sut.run import _check_devices, warmup
from tests import amd_nodes
from tests.conftest import ROOT
from tests.recorded_machine import RECORDED, printing

ALL = range(256)
NODES = {0: "0-63,128-191", 1: "64-127,192-255"}
GOLDEN = ROOT / "tests/golden/places-8-devices.json"


def engine(engines: int, per_engine: int = 1, variable: str = "HIP_VISIBLE_DEVICES") -> Any:
    placement = SimpleNamespace(engines_per_node=engines, pinned=True, device_variable=variable)
    return SimpleNamespace(
        placement=placement, arguments=SimpleNamespace(tensor_parallel_size=per_engine)
    )


def write(root: Path, path: str, text: object) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n", encoding="ascii")


def tree(root: Path, numa: list[int], functions: int = 1) -> Path:
    """A node of two processors of 64 cores, and an accelerator on each of these NUMA nodes."""
    for node, cpus in NODES.items():
        write(root, f"sys/devices/system/node/node{node}/cpulist", cpus)
    for cpu in ALL:
        path = f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        write(root, path, f"{cpu % 128},{cpu % 128 + 128}")
    for number in (0, 1):  # the processors are nodes of the topology too
        write(
            root, f"{accelerators.TOPOLOGY}/{number}/properties", "cpu_cores_count 64\nsimd_count 0"
        )
    for number, node in enumerate(numa):
        bus = 0x5 + 0x10 * number
        address = f"0000:{bus:02x}:00.0"
        write(root, f"{accelerators.PCI}/{address}/vendor", "0x1002")
        write(root, f"{accelerators.PCI}/{address}/class", "0x120000")
        write(root, f"{accelerators.PCI}/{address}/numa_node", node)
        for function in range(functions):
            index = 2 + functions * number + function
            text = f"simd_count 304\nlocation_id {bus << 8 | function}\ndomain 0"
            write(root, f"{accelerators.TOPOLOGY}/{index}/properties", text)
    return root


def test_eight_engines_keep_to_the_side_of_their_accelerator(tmp_path: Path) -> None:
    """As on the published machines: four accelerators at each processor, whole cores for each."""
    root = tree(tmp_path, [0] * 4 + [1] * 4)
    places = [place_of(engine(8), number, root, ALL) for number in range(8)]
    found = [
        {
            "variables": place.variables,
            "numa_node": place.memory,
            "cores": sorted({cpu % 128 for cpu in place.cpus}),
            "cpus": len(place.cpus),
        }
        for place in places
    ]
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))
    cpus = [cpu for place in places for cpu in place.cpus]
    assert sorted(cpus) == list(ALL)
    assert accelerators.addresses("HIP_VISIBLE_DEVICES", root)[:2] == [
        "0000:05:00.0",
        "0000:15:00.0",
    ]


def test_the_order_of_accelerators_is_the_kernels_and_not_the_even_split(tmp_path: Path) -> None:
    root = tree(tmp_path, [1, 1, 0, 0])
    memory = [place_of(engine(4), number, root, ALL).memory for number in range(4)]
    assert memory == [1, 1, 0, 0]
    first = place_of(engine(4), 0, root, ALL).cpus
    assert len(first) == 64 and set(first) <= {*range(64, 128), *range(192, 256)}


@pytest.mark.parametrize("per_engine", [2, 8])
def test_an_engine_of_several_accelerators_has_the_cpus_of_all(
    per_engine: int, tmp_path: Path
) -> None:
    root = tree(tmp_path, [0] * 4 + [1] * 4)
    count = 8 // per_engine
    places = [place_of(engine(count, per_engine), n, root, ALL) for n in range(count)]
    numbers = [place.devices.split(",") for place in places]
    assert [int(n) for one in numbers for n in one] == list(range(8))
    assert [len(place.cpus) for place in places] == [256 // count] * count
    assert [place.memory for place in places] == ([0, 0, 1, 1] if per_engine == 2 else [None])


@pytest.mark.parametrize("numa", [[-1] * 8, []])
def test_without_a_word_of_the_kernel_all_cpus_are_shared_evenly(
    numa: list[int], tmp_path: Path
) -> None:
    root = tree(tmp_path, numa)
    places = [place_of(engine(8), number, root, ALL) for number in range(8)]
    assert {len(place.cpus) for place in places} == {32}
    assert {place.memory for place in places} == {None}


def test_cpus_that_a_process_may_not_use_are_not_given(tmp_path: Path) -> None:
    root = tree(tmp_path, [0] * 4 + [1] * 4)
    allowed = range(0, 64)  # a container that has one processor
    places = [place_of(engine(8), number, root, allowed) for number in range(8)]
    assert {cpu for place in places for cpu in place.cpus} <= set(allowed)
    assert places[7].cpus and places[7].memory is None


def test_partitions_are_devices_of_their_card(tmp_path: Path) -> None:
    root = tree(tmp_path, [0] * 4 + [1] * 4, functions=8)
    assert accelerators.addresses("HIP_VISIBLE_DEVICES", root)[9] == "0000:15:00.1"
    places = [place_of(engine(64), number, root, ALL) for number in range(64)]
    assert [place.memory for place in places] == [0] * 32 + [1] * 32


def test_cuda_counts_by_address_as_the_bus_does(tmp_path: Path) -> None:
    root = tree(tmp_path, [0, 1])
    for path in (root / accelerators.PCI).iterdir():
        (path / "vendor").write_text("0x10de\n", encoding="ascii")
    place = place_of(engine(2, variable="CUDA_VISIBLE_DEVICES"), 1, root, ALL)
    assert place.variables == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert place.memory == 1


def test_an_engine_on_a_cpu_is_given_nothing_else(tmp_path: Path) -> None:
    place = place_of(engine(2, variable="none"), 1, tree(tmp_path, []), ALL)
    assert place == Place("", tuple([*range(64, 128), *range(192, 256)]), None, {})


# ---- which of them a process got -----------------------------------------------------------------


class Runtime:
    """HIP's and CUDA's calls for two devices."""

    def __init__(self, *found: str) -> None:
        self._found = found

    def _count(self, count: Any) -> int:
        count._obj.value = len(self._found)
        return 0

    def _told(self, text: Any, size: int, device: int) -> int:
        text.value = self._found[device].encode()
        return 0

    def _device(self, device: Any, number: int) -> int:
        device._obj.value = number
        return 0

    def cuInit(self, flags: int) -> int:
        return 0

    hipGetDeviceCount = cuDeviceGetCount = _count
    hipDeviceGetPCIBusId = cuDeviceGetPCIBusId = _told
    cuDeviceGet = _device


@pytest.mark.parametrize(
    ("library", "found"),
    [
        ("/opt/rocm/lib/libamdhip64.so.6.4.60401", ("0000:05:00.0", "0000:15:00.0")),
        ("/usr/lib/x86_64-linux-gnu/libcuda.so.550.54", ("0000:05:00.0", "0000:15:00.0")),
        ("/usr/lib/libc.so.6", ()),
    ],
)
def test_a_process_says_which_accelerators_it_sees(
    library: str, found: tuple[str, ...], tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    maps.write_text(f"7f00-7f01 r-xp 00000000 08:01 99 {library}\n7f02-7f03 rw-p 0 00:00 0\n")
    loaded: list[str] = []

    def load(path: str) -> Any:
        loaded.append(path)
        return Runtime("00000000:05:00.0", "0000:15:00.0")

    assert accelerators.got(maps, load) == found
    assert loaded == ([library] if found else [])


def test_a_process_without_a_runtime_says_nothing() -> None:
    assert accelerators.got(Path("/nowhere")) == ()
    assert ctypes.sizeof(ctypes.c_int) == 4


def ready(given: str, *bus: str) -> wire.Ready:
    return wire.Ready({}, Resolved(), "MI300X", given, 1, 1.0, 1.0, bus=bus)


def fleet(*known: wire.Ready, per_node: int = 8) -> Fleet:
    made = object.__new__(Fleet)
    made._ready = dict(enumerate(known))
    made._links = [SimpleNamespace(name=f"engine {n}") for n in range(16)]  # type: ignore[misc]
    made._placement = SimpleNamespace(  # type: ignore[assignment]
        engines_per_node=per_node, device_variable="HIP_VISIBLE_DEVICES"
    )
    made._seats = tuple(Seat(n // per_node, n % per_node) for n in range(16))
    return made


def test_two_engines_on_one_accelerator_are_refused() -> None:
    first = ready("0", "0000:05:00.0")
    with pytest.raises(UserError, match=r"engine 1 and engine 0 both got accelerator 0000:05:00.0"):
        fleet(first)._require_own(1, ready("1", "0000:05:00.0"))
    fleet(first)._require_own(1, ready("1", "0000:15:00.0"))
    fleet(first, per_node=1)._require_own(1, ready("0", "0000:05:00.0"))  # of another node
    fleet(first)._require_own(1, ready("1"))


def test_an_engine_that_sees_more_than_it_was_given_is_refused() -> None:
    with pytest.raises(UserError, match=r"was given 1 accelerators and its process sees 2"):
        fleet()._require_own(0, ready("0", "0000:05:00.0", "0000:15:00.0"))


# ---- before a run --------------------------------------------------------------------------------

KIND = {
    "hardware": "mi300x",
    "nodes": 1,
    "accelerator": {
        "model": "AMD Instinct MI300X",
        "memory_gb": 192,
        "architecture": "gfx942",
        "count_per_node": 8,
    },
    "modes": {"compute": "SPX", "memory": "NPS1"},
}
PLACEMENT = {
    "cluster": "none",
    "nodes": 1,
    "engines_per_node": 8,
    "in_process": False,
    "pinned": True,
    "device_variable": "HIP_VISIBLE_DEVICES",
    "prompt_token_weight": 0.02,
    "on_failure": "fail",
    "silence_limit_s": 30,
    "degraded_below": 0.85,
    "kinds": [KIND],
}


def prober(model: str, folder: Path) -> Prober:
    tools = {
        "amd-smi static": f"amd-smi-static-8x{model}.json",
        "rocm-smi --showproductname": f"rocm-smi-8x{model}.json",
    }
    return Prober(run=printing(tools), root=folder)


def test_a_run_starts_on_the_machine_it_was_planned_for_and_on_no_other(tmp_path: Path) -> None:
    placement = Placement.model_validate_json(json.dumps(PLACEMENT))
    there = accelerators.require(placement, prober("mi300x", tmp_path))
    assert accelerators.summary(there) == {
        "listed": "8 × AMD Instinct MI300X",
        "architecture": "gfx942",
        "driver": "6.10.5",
        "memory_mib": 196592,
        "bus": [f"0000:{n}5:00.0" for n in range(8)],
    }
    assert accelerators.settings(there) == {
        "performance_level": "perf_determinism",
        "max_clock_mhz": 1400,
        "soc_pstate": 1,
        "power_cap_w": 750.0,
        "compute_partition": "SPX",
        "memory_partition": "NPS1",
    }
    with pytest.raises(UserError, match=r"8 × AMD Instinct MI300X .* there are 8 × .*MI325X"):
        accelerators.require(placement, prober("mi325x", tmp_path))
    with pytest.raises(UserError, match="amd-smi is not installed"):
        accelerators.require(placement, Prober(run=printing({}), root=tmp_path))
    nothing = Placement.model_validate_json(json.dumps({**PLACEMENT, "kinds": []}))
    assert accelerators.require(nothing, Prober(run=printing({}), root=tmp_path)) == ()
    _check_devices(there, [reported("0000:05:00.3")])  # a partition
    with pytest.raises(UserError, match=r"engine 1 got accelerator 0000:99:00.0, which isn't"):
        _check_devices(there, [reported("0000:99:00.0")])


def reported(address: str) -> EngineReport:
    return EngineReport.model_construct(name="engine 1", bus=(address,))


def test_accelerators_that_somebody_else_has_are_waited_for_and_then_named(
    tmp_path: Path,
) -> None:
    """As the memory of an engine that has just ended, and as another's run."""
    placement = Placement.model_validate_json(json.dumps(PLACEMENT))
    whole, now = amd_nodes.whole("mi300x"), [0.0]
    held = [dict(card) for card in whole.cards]
    for card in held[2:4]:
        card["VRAM Total Used Memory (B)"] = str(180 << 30)
    asked: list[str] = []

    def run(command: Sequence[str]) -> str:
        free = len(asked) > 3
        asked.append(command[0])
        return amd_nodes.printing(whole._replace(cards=whole.cards if free else held))(command)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def required(prober: Prober) -> Any:
        return accelerators.require(placement, prober, lambda: now[0], sleep)

    assert len(required(Prober(run=run, root=tmp_path))) == 8
    assert 0 < now[0] < accelerators.FREED_S
    for_ever = amd_nodes.printing(whole._replace(cards=held))
    with pytest.raises(UserError, match=r"of 2 of 8 accelerators in use: .*MiB\); end it"):
        required(Prober(run=for_ever, root=tmp_path))


@pytest.mark.parametrize("tool", ["amd-smi", "nvidia-smi"])
def test_memory_that_somebody_has_is_seen_by_each_vendors_own_tool(
    tool: str, tmp_path: Path
) -> None:
    """Without rocm-smi. An engine of another's holds most of accelerator 5."""
    kind, wanted = dict(KIND), dict(KIND["accelerator"])  # type: ignore[call-overload]
    texts = {
        "amd-smi static": (RECORDED / "amd-smi-static-8xmi300x.json").read_text(encoding="utf-8"),
        "amd-smi metric": (RECORDED / "amd-smi-mem-usage-8xmi300x.json").read_text(
            encoding="utf-8"
        ),
        "nvidia-smi --query": (RECORDED / "nvidia-smi-8xh100.csv").read_text(encoding="utf-8"),
    }
    if tool == "nvidia-smi":
        wanted |= {"model": "NVIDIA H100", "memory_gb": 80, "architecture": "sm_90"}
        kind["modes"] = None
    placement = {**PLACEMENT, "kinds": [{**kind, "accelerator": wanted}]}

    def run(command: Sequence[str]) -> str:
        known = (name for name in texts if " ".join(command).startswith(name))
        if (name := next(known, None)) is None:
            raise MissingTool(f"{command[0]} is not installed")
        return texts[name]

    now = [0.0]

    def required() -> Any:
        typed = Placement.model_validate_json(json.dumps(placement))
        prober = Prober(run=run, root=tmp_path)
        return accelerators.require(
            typed, prober, lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds)
        )

    assert len(required()) == 8
    devices = json.loads(texts["amd-smi metric"])
    devices[5]["mem_usage"]["used_vram"]["value"] = 176543
    texts["amd-smi metric"] = json.dumps(devices)
    texts["nvidia-smi --query"] = texts["nvidia-smi --query"].replace(
        "00000000:C3:00.0, 1 MiB", "00000000:C3:00.0, 70123 MiB"
    )
    says = {
        "amd-smi": r"1 of 8 .* 0000:55:00.0 \(176543 MiB\); end it \(amd-smi process names it\)",
        "nvidia-smi": r"1 of 8 .* 0000:c3:00.0 \(70123 MiB\); end it \(nvidia-smi names it\)",
    }
    with pytest.raises(UserError, match=says[tool]):
        required()


def test_what_an_engine_compiles_has_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = caches.use(tmp_path / "engine-0")
    assert set(found) == set(caches.VARIABLES)
    assert all(Path(path).is_dir() for path in found.values())
    assert caches.use(tmp_path / "engine-0") == found  # it outlives a run
    (tmp_path / "engine-1").write_text("in the way", encoding="ascii")
    with pytest.raises(UserError, match=r"engine-1, where the engine keeps what it .*, can"):
        caches.use(tmp_path / "engine-1")
    full = SimpleNamespace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(UserError, match=r"has 0.1 GB free and needs 2 GB; free some, or make"):
        caches.use(tmp_path / "engine-0")
    image = Path("results/artifacts/container/llama2-70b-gfx942-0123/manifest.json")
    assert caches.of_run(image) == "results/caches/llama2-70b-gfx942-0123"


@pytest.mark.parametrize("count", [1, 2, 5, 50])
def test_warm_up_prompts_have_all_lengths(count: int) -> None:
    calibration = [[1] * n for n in (7, 3, 30, 12, 5, 18)]
    evaluation = [[1] * 100, [1] * 4]
    found = warmup(Samples(evaluation, calibration, stops=[]), count)
    lengths = [len(prompt) for prompt in found]
    assert lengths == sorted(lengths) and len(found) == min(count, 6)
    assert lengths[-1] == 75  # all that there is, as the longest has 100
    if count > 1:
        assert lengths[0] == 3


# ---- which nodes load ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "ready", "waiting", "now"),
    [
        (None, (), [0, 1, 2, 3], [0, 1, 2, 3]),
        (2, (), [0, 1, 2, 3], [0, 1]),
        (2, (0,), [2, 3], []),  # of node 0 one engine still loads
        (2, (0, 1), [2, 3], [2]),
        (2, (0, 1, 2, 3), [2, 3], [2, 3]),
        (1, (0, 1, 2, 3, 4, 5), [3], [3]),
    ],
)
def test_no_more_nodes_load_at_once_than_one_disk_bears(
    most: int | None, ready: tuple[int, ...], waiting: list[int], now: list[int]
) -> None:
    made = object.__new__(Fleet)
    made._seats = tuple(Seat(n // 2, n % 2) for n in range(8))
    made._missing = set()
    made._ready = dict.fromkeys(ready)  # type: ignore[arg-type]
    made._placement = SimpleNamespace(nodes=4, nodes_loading=most)  # type: ignore[assignment]
    assert list(made._next_to_load(waiting)) == now
