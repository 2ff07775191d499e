"""What the doctor finds on machines made of recorded outputs, and that it only reads."""

import copy
import hashlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.arguments import UsageError
from steps.base.errors import UserError
from steps.commands import doctor
from steps.commands.cli import call
from steps.commands.doctor.checks import Finding, findings, may_start
from steps.commands.doctor.needs import Accelerator, Needs, Repository, needs
from steps.commands.doctor.settings import Clock, load
from steps.commands.doctor.state import Answer, State, answer, host_values, state, taken
from steps.config.accelerators import Modes
from steps.config.compose import compose
from steps.config.fetch import Secret
from steps.config.groups import hardware_file
from steps.config.layers import SELECTORS, effective
from steps.config.runtime import EngineAddress
from steps.machine.probes.machine import Prober
from steps.machine.probes.values import Ray
from steps.plan import capacity
from steps.prepare.fetch import hub as fetching
from steps.prepare.fetch.hub import Entry, may_read, token
from tests.conftest import ROOT, planned
from tests.recorded_machine import FILES, TOOLS, machine, printing

SETTINGS = load()
CAPACITY = capacity.load()
PLAN = planned()
CELLS = [cell.values for cell in compose(ROOT / "conf", []).cells]

MI325X = Accelerator(
    model="AMD Instinct MI325X", memory_gb=256, architecture="gfx942", count_per_node=8
)
CPX = Modes(compute="CPX")
DOCKER = EngineAddress(engine="docker", socket="unix:///var/run/docker.sock")
PODMAN = EngineAddress(engine="podman", socket="unix:///run/podman/podman.sock")
SECRET = Secret(environment="HF_TOKEN")
RUNS = Answer(version="27.5.1", complaint="")
OFFLINE = "llama2-70b-99 Offline"
TUNED: Mapping[str, str] = {
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu0/cpuidle/state2/disable": "1\n",
    "proc/sys/kernel/numa_balancing": "0\n",
    "proc/sys/kernel/nmi_watchdog": "0\n",
    "proc/sys/kernel/randomize_va_space": "0\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n",
    "sys/kernel/mm/transparent_hugepage/defrag": "[always] defer defer+madvise madvise never\n",
    "dev/kfd": "",
    "dev/dri/renderD128": "",
}


def running(address: EngineAddress) -> Answer:
    return RUNS


def wanted(**changes: Any) -> Needs:
    """AMD's llama2-70b Offline on eight MI325X, at performance level auto unless changed."""
    base = Needs(
        systems=("amd-mi325x",),
        nodes=1,
        accelerators=(MI325X,),
        partitions=(Modes(),),
        clocks={OFFLINE: None},
        memory_gb=154.0,
        disk_gb=300.0,
        repositories=(),
        containers=True,
        engines=(DOCKER,),
        environments=(),
    )
    return base.model_copy(update=changes)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> State:
    """A machine that has everything, set as AMD set it."""
    root = tmp_path_factory.mktemp("machine")
    return read(root, wanted(), TUNED)


def read(
    root: Path, need: Needs, files: Mapping[str, str], tools: Mapping[str, str] | None = None
) -> State:
    machine(root, tools, files)
    prober = Prober(run=printing({**TOOLS, **(tools or {})}), root=root)
    found = state(need, SETTINGS, root / "results", environment={}, prober=prober, ask=running)
    return found.model_copy(update={"free_gb": 1000.0})


def trouble(need: Needs, now: State) -> list[Finding]:
    return [f for f in findings(need, now, SETTINGS) if f.level != "ok"]


# ---- one thing wrong at a time ------------------------------------------------------------------


def test_a_machine_set_as_amd_set_it_has_no_complaint(tuned: State) -> None:
    found = findings(wanted(), tuned, SETTINGS)
    assert trouble(wanted(), tuned) == []
    assert may_start(found)
    assert {f.check for f in found} >= {
        *("disk", "memory", "accelerators", "driver", "compute partition", "memory partition"),
        *("container engine", f"clocks, {OFFLINE}", "NUMA balancing", "transparent huge pages"),
    }


@pytest.mark.parametrize(
    ("files", "check", "says", "fix"),
    [
        (
            {"sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n"},
            *("CPU frequency governor", "performance, powersave; submitted with performance"),
            "sudo cpupower frequency-set -g performance",
        ),
        (
            {"proc/sys/kernel/numa_balancing": "1\n"},
            *("NUMA balancing", "1; submitted with 0"),
            "echo 0 | sudo tee /proc/sys/kernel/numa_balancing",
        ),
        (
            {"sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n"},
            *("transparent huge pages", "madvise; submitted with always"),
            "echo always | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        ),
    ],
)
def test_a_host_setting_warns_with_the_command(
    tmp_path: Path, files: dict[str, str], check: str, says: str, fix: str
) -> None:
    now = read(tmp_path, wanted(), {**TUNED, **files})
    assert trouble(wanted(), now) == [Finding("warn", check, says, fix)]


def test_a_setting_that_the_kernel_lacks_is_not_taken_for_right(tmp_path: Path) -> None:
    files = {path: text for path, text in TUNED.items() if "cpufreq" not in path}
    (finding,) = trouble(wanted(), read(tmp_path, wanted(), files))
    assert finding.level == "warn" and "this kernel has no" in finding.says


@pytest.mark.parametrize(
    ("changes", "check", "says", "fix"),
    [
        ({"disk_gb": 1500.5}, "disk", "1000.0 GB free", "free 500 GB there"),
        (
            {"accelerators": (MI325X.model_copy(update={"count_per_node": 16}),)},
            *(
                "accelerators",
                "there are 8 × AMD Instinct MI325X; the plan needs 16",
                "look in dmesg",
            ),
        ),
        (
            {"accelerators": (MI325X.model_copy(update={"model": "AMD Instinct MI300X"}),)},
            *(
                "accelerators",
                "there are 8 × AMD Instinct MI325X; the plan needs 8",
                "choose the system",
            ),
        ),
        (
            {"accelerators": (MI325X.model_copy(update={"architecture": "gfx950"}),)},
            *("accelerators", "there are some of gfx942, not gfx950", "choose the system"),
        ),
        (
            {"accelerators": (MI325X.model_copy(update={"memory_gb": 192.0}),)},
            *("accelerators", "there are some with 256 GB, not 192", "choose the system"),
        ),
        (
            {"partitions": (CPX,)},
            *("compute partition", "there are some in SPX, not CPX"),
            "sudo amd-smi set --compute-partition CPX",
        ),
        ({"nodes": 2}, "Ray", "no cluster answers, the plan needs 2 nodes", "ray start --head"),
    ],
)
def test_what_a_run_cannot_do_without_fails_with_the_fix(
    tuned: State, changes: dict[str, Any], check: str, says: str, fix: str
) -> None:
    (finding,) = trouble(wanted(**changes), tuned)
    assert (finding.level, finding.check) == ("fail", check)
    assert (says in finding.says and finding.fix.startswith(fix)) or fix in finding.fix
    assert not may_start([finding])


def test_memory_for_the_weights_is_advice_and_the_floor_is_not(tuned: State) -> None:
    (finding,) = trouble(wanted(memory_gb=5000.0), tuned)
    assert finding.level == "warn" and finding.fix.startswith("add memory, or expect")
    memory = tuned.node.memory
    assert memory is not None
    scarce = memory.model_copy(update={"available_kib": 1_000_000})
    node = tuned.node.model_copy(update={"memory": scarce})
    (finding,) = trouble(wanted(), tuned.model_copy(update={"node": node}))
    assert finding.level == "fail" and finding.fix.startswith("end other programs (ps aux")


def test_any_kind_of_a_mixed_cluster_will_do(tuned: State) -> None:
    mi300x = MI325X.model_copy(update={"model": "AMD Instinct MI300X", "memory_gb": 192.0})
    need = wanted(accelerators=(mi300x, MI325X))
    assert trouble(need, tuned) == []


def test_clocks_of_each_scenario_warn_with_both_commands(tmp_path: Path) -> None:
    clocks = {
        f"llama2-70b-99 {scenario}": Clock(max_clock_mhz=mhz, soc_pstate=1)
        for scenario, mhz in (("Offline", 1400), ("Server", 1300))
    }
    tools = {
        "amd-smi static": "amd-smi-static-8xmi300x.json",
        "rocm-smi --showproductname": "rocm-smi-8xmi300x.json",
    }
    mi300x = MI325X.model_copy(update={"model": "AMD Instinct MI300X", "memory_gb": 192.0})
    need = wanted(clocks=clocks, accelerators=(mi300x,))
    # This machine is set for Offline: 1400 MHz, SoC policy 1.
    (finding,) = trouble(need, read(tmp_path, need, TUNED, tools))
    assert (finding.level, finding.check) == ("warn", "clocks, llama2-70b-99 Server")
    assert finding.fix == (
        "before its run: sudo rocm-smi --setperfdeterminism 1300; "
        "sudo amd-smi set --soc-pstate 1 -g all"
    )


def test_cards_in_another_partition_mode_are_still_counted_whole(tmp_path: Path) -> None:
    """Sixty-four logical devices are eight accelerators, in the wrong mode."""
    tools = {**TOOLS, "rocm-smi --showproductname": "rocm-smi-64xmi325x-cpx.json"}
    del tools["amd-smi static"]
    machine(tmp_path, files=TUNED)
    prober = Prober(run=printing(tools), root=tmp_path)
    now = state(wanted(), SETTINGS, tmp_path, environment={}, prober=prober, ask=running)
    found = trouble(wanted(), now.model_copy(update={"free_gb": 1000.0}))
    assert [f.check for f in found if f.level == "fail"] == ["compute partition"]
    assert "there are some in CPX, not SPX" in [f.says for f in found]


@pytest.mark.parametrize("without", [(), ("amd-smi static",), ("rocm-smi --showproductname",)])
def test_a_machine_in_cpx_is_right_for_a_plan_that_wants_it(
    tmp_path: Path, without: tuple[str, ...]
) -> None:
    """Fifty-six of its sixty-four devices don't name their mode."""
    tools = {
        **TOOLS,
        "amd-smi static": "amd-smi-static-64xmi300x-cpx.json",
        "rocm-smi --showproductname": "rocm-smi-64xmi300x-cpx.json",
    }
    tools = {tool: name for tool, name in tools.items() if tool not in without}
    mi300x = MI325X.model_copy(update={"model": "AMD Instinct MI300X", "memory_gb": 192.0})
    need = wanted(accelerators=(mi300x,), partitions=(CPX,), clocks={})
    machine(tmp_path, files=TUNED)
    prober = Prober(run=printing(tools), root=tmp_path)
    now = state(need, SETTINGS, tmp_path, environment={}, prober=prober, ask=running)
    found = trouble(need, now.model_copy(update={"free_gb": 1000.0}))
    assert found == []


def test_a_mode_that_not_every_device_names_is_said(tuned: State) -> None:
    *devices, last = tuned.node.accelerators
    silent = last.model_copy(update={"compute_partition": None})
    node = tuned.node.model_copy(update={"accelerators": (*devices, silent)})
    (finding,) = trouble(wanted(), tuned.model_copy(update={"node": node}))
    assert (finding.level, finding.says) == ("warn", "SPX, but not every device reports it")


def answer_of_none(address: EngineAddress) -> Answer:
    return Answer(version=None, complaint=f"{address.engine} has no socket")


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_engine_that_runs_will_use_is_asked_and_no_other(
    tuned: State, tmp_path: Path, engine: str
) -> None:
    """Docker answers here; a plan with runtime=podman isn't helped by that."""
    need = needs(planned(f"runtime={engine}"), CELLS, tmp_path, SETTINGS, CAPACITY)
    assert [one.engine for one in need.engines] == [engine]
    socket = need.engines[0].socket.replace("unix:///", f"unix://{tmp_path}/")
    none = answer(EngineAddress(engine=need.engines[0].engine, socket=socket))
    assert none.version is None and f"{engine} has no socket {tmp_path}" in none.complaint
    now = tuned.model_copy(update={"engines": {need.engines[0].socket: none}})
    (finding,) = trouble(wanted(engines=need.engines), now)
    assert (finding.level, finding.check) == ("fail", "container engine")
    assert engine in finding.says and engine in finding.fix


def test_no_driver_says_what_the_tools_said(tmp_path: Path) -> None:
    machine(tmp_path, files=TUNED)
    prober = Prober(run=printing({}), root=tmp_path)
    now = state(wanted(), SETTINGS, tmp_path, environment={}, prober=prober, ask=answer_of_none)
    by_check = {f.check: f for f in trouble(wanted(), now)}
    assert by_check["accelerators"].says == "8 on the bus, no tool lists any"
    assert "amd-smi is not installed" in by_check["accelerators"].fix
    assert by_check["container engine"].says == "docker has no socket"
    assert "systemctl start docker" in by_check["container engine"].fix


def test_one_device_that_is_another_is_enough(tuned: State) -> None:
    *devices, last = tuned.node.accelerators
    other = last.model_copy(update={"model": "AMD Instinct MI300X"})
    node = tuned.node.model_copy(update={"accelerators": (*devices, other)})
    (finding,) = trouble(wanted(), tuned.model_copy(update={"node": node}))
    assert finding.says.startswith(
        "there are 7 × AMD Instinct MI325X and 1 × AMD Instinct MI300X; the plan needs 8"
    )


def test_a_lowered_power_cap_warns_with_the_command(tuned: State) -> None:
    *devices, last = tuned.node.accelerators
    capped = last.model_copy(update={"power_cap_w": 750.0})
    node = tuned.node.model_copy(update={"accelerators": (*devices, capped)})
    (finding,) = trouble(wanted(), tuned.model_copy(update={"node": node}))
    assert finding == Finding(
        "warn", "power cap", "capped at 750 W of 1000 W", "sudo amd-smi set --power-cap 1000"
    )


def test_device_files_that_a_user_may_not_open(tuned: State) -> None:
    now = tuned.model_copy(update={"closed_files": ("/dev/kfd",)})
    (finding,) = trouble(wanted(), now)
    assert finding.fix == "sudo usermod -a -G render,video $USER, then log in again"


def test_a_plan_without_accelerators_asks_for_none(tmp_path: Path) -> None:
    need = wanted(
        accelerators=(), partitions=(), clocks={}, containers=False, engines=(), memory_gb=4.0
    )
    prober = Prober(run=printing({}), root=tmp_path)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(FILES["proc/meminfo"], encoding="utf-8")
    now = state(need, SETTINGS, tmp_path, environment={}, prober=prober, ask=running)
    now = now.model_copy(update={"free_gb": 1000.0, "numa_library": False})
    assert trouble(need, now) == []
    (finding,) = trouble(need.model_copy(update={"environments": ("cpu",)}), now)
    assert (finding.check, finding.fix) == ("libnuma", "sudo apt-get install libnuma1")


# ---- clusters, ports, access --------------------------------------------------------------------


def test_a_port_in_use_is_named_unless_ray_holds_it(tuned: State) -> None:
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        assert taken(listener.getsockname()[1])
    need = wanted(nodes=6)
    busy = tuned.model_copy(update={"taken_ports": (6379,)})
    assert [f.check for f in trouble(need, busy)] == ["port 6379", "Ray"]

    def with_ray(nodes: int) -> State:
        ray = Ray(nodes=nodes, gpus=8.0 * nodes)
        node = busy.node.model_copy(update={"ray": ray})
        return busy.model_copy(update={"node": node})

    assert trouble(need, with_ray(6)) == []
    (finding,) = trouble(need, with_ray(5))
    assert finding.says == "5 nodes, 40 accelerators; the plan needs 6 nodes"


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A hub on this machine; "granted" needs the token "good". Yields its address, what it saw."""
    seen: list[str] = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            secret = self.headers.get("Authorization", "")
            seen.append(self.path)
            if "moved" in self.path:
                self.send_response(302)
                port = self.server.server_address[1]
                self.send_header("Location", f"http://localhost:{port}/elsewhere")
                self.end_headers()
                return
            code = 401 if "good" not in secret else 403 if "denied" in self.path else 200
            self.send_response(500 if "broken" in self.path else code)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_token_does_not_follow_a_redirect(hub: tuple[str, list[str]]) -> None:
    """The other host grants access to whoever brings the token, so granted means it had it."""
    endpoint, seen = hub
    found = may_read(endpoint, "meta-llama/moved", SECRET, {"HF_TOKEN": "good"})
    assert found.state == "denied"
    assert seen[-1] == "/elsewhere"


@pytest.mark.parametrize(
    ("repository", "environment", "answer", "reason"),
    [
        ("meta-llama/granted", {"HF_TOKEN": "good"}, "granted", "grants access"),
        ("meta-llama/denied", {"HF_TOKEN": "good"}, "denied", "licence isn't accepted"),
        ("meta-llama/granted", {"HF_TOKEN": "bad"}, "denied", "refuses $HF_TOKEN"),
        ("meta-llama/granted", {}, "denied", "no token"),
        ("meta-llama/broken", {"HF_TOKEN": "good"}, "unknown", "answers status 500"),
    ],
)
def test_access_to_a_gated_model(
    hub: tuple[str, list[str]],
    tmp_path: Path,
    repository: str,
    environment: dict[str, str],
    answer: str,
    reason: str,
) -> None:
    endpoint, seen = hub
    found = may_read(endpoint, repository, SECRET, {"HF_HOME": str(tmp_path), **environment})
    assert found.state == answer and reason in found.reason
    assert seen == [f"/api/models/{repository}/auth-check"]
    assert "good" not in found.reason and "bad" not in found.reason


def test_access_without_a_network_is_unknown_and_warns(tuned: State) -> None:
    found = may_read("http://127.0.0.1:1", "meta-llama/x", None, {})
    assert found.state == "unknown" and "can't be reached" in found.reason
    assert may_read("no address at all", "meta-llama/x", None, {}).state == "unknown"
    repository = Repository(name="meta-llama/x", endpoint=fetching.PUBLIC, token=SECRET)
    need = wanted(repositories=(repository,))
    (finding,) = trouble(need, tuned.model_copy(update={"access": {"meta-llama/x": found}}))
    assert finding.level == "warn" and "accept the licence at https://" in finding.fix
    refused = Entry(state="denied", reason="there is no token")
    (finding,) = trouble(need, tuned.model_copy(update={"access": {"meta-llama/x": refused}}))
    assert finding.level == "fail"


@pytest.mark.parametrize(
    ("environment", "files", "expected"),
    [
        ({}, {}, ""),
        ({"HF_TOKEN": " a "}, {"home/token": "b"}, "a"),
        ({"HF_TOKEN": " "}, {"home/token": "b\n"}, "b"),
        ({"HUGGING_FACE_HUB_TOKEN": "c"}, {"home/token": "b"}, "c"),
        ({"HF_TOKEN_PATH": "own"}, {"home/token": "b", "own": "d"}, "d"),
        ({"HF_TOKEN_PATH": "absent"}, {"home/token": "b"}, "b"),
        ({"HF_HOME": None, "XDG_CACHE_HOME": "x"}, {"x/huggingface/token": "e"}, "e"),
    ],
)
def test_the_token_is_found_where_the_hub_library_keeps_it(
    tmp_path: Path, environment: dict[str, str | None], files: dict[str, str], expected: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    given = {"HF_HOME": "home", **environment}
    paths = ("HF_HOME", "HF_TOKEN_PATH", "XDG_CACHE_HOME")
    known = {k: str(tmp_path / v) if k in paths else v for k, v in given.items() if v is not None}
    assert token(SECRET, known)[0] == expected
    assert token(None, known) == ("", "")


def test_a_token_by_another_name_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file", encoding="utf-8")
    known = {"HF_HOME": str(tmp_path), "ACME": "own"}
    assert token(Secret(environment="ACME"), known) == ("own", "$ACME")
    with pytest.raises(UserError, match=r"\$OTHER holds no token"):
        token(Secret(environment="OTHER"), known)
    found = may_read(fetching.PUBLIC, "meta-llama/x", Secret(environment="OTHER"), known)
    assert found.state == "unknown" and "holds no token" in found.reason


def test_another_address_of_the_hub_stands_in_for_the_public_one() -> None:
    known = {"HF_ENDPOINT": "https://mirror.example/"}
    assert fetching.address("https://huggingface.co/", known) == "https://mirror.example"
    assert fetching.address("https://hub.example", known) == "https://hub.example"
    assert fetching.address("https://huggingface.co", {}) == "https://huggingface.co"


# ---- what a plan needs --------------------------------------------------------------------------


def cells(**changes: Any) -> list[dict[str, Any]]:
    """The rehearsal's cells with other groups, as if composed for other hardware."""
    changed = copy.deepcopy(CELLS)
    for cell in changed:
        for group, value in changes.items():
            cell[group] = {**cell.get(group, {}), **value}
    return changed


GPU = {"name": "mi325x", "accelerator": MI325X.model_dump()}


def test_the_rehearsal_needs_disk_memory_and_two_environments(tmp_path: Path) -> None:
    need = needs(PLAN, CELLS, tmp_path, SETTINGS, CAPACITY)
    assert (need.systems, need.nodes, need.accelerators) == (("rehearsal-cpu",), 1, ())
    assert need.memory_gb == SETTINGS.memory_floor_gb
    assert set(need.environments) == {"cpu", "analysis"}
    assert not need.containers and not need.engines and not need.clocks and not need.repositories
    for job in PLAN.jobs:
        (tmp_path / job.output).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / job.output).write_text("{}", encoding="utf-8")
    done = needs(PLAN, CELLS, tmp_path, SETTINGS, CAPACITY)
    assert (done.disk_gb, done.environments) == (0.0, ())
    assert need.disk_gb > 3


def test_a_dress_rehearsal_needs_neither_accelerators_nor_a_hub(tmp_path: Path) -> None:
    asked = ["experiment=amd-v5.1", "scale=dress"]
    composed = [dict(cell.values) for cell in compose(ROOT / "conf", asked).cells]
    need = needs(planned(*asked), composed, tmp_path, SETTINGS, CAPACITY)
    assert (need.nodes, need.accelerators, need.clocks, need.repositories) == (1, (), {}, ())
    assert need.memory_gb == SETTINGS.memory_floor_gb
    assert need.disk_gb < 30 and not need.containers


def test_accelerators_bring_partitions_clocks_and_the_other_kinds_of_a_cluster(
    tmp_path: Path,
) -> None:
    groups = [{"hardware": "mi300x", "nodes": 4}, {"hardware": "mi325x", "nodes": 2}]
    composed = cells(
        hardware=GPU,
        benchmark={"name": "llama2-70b-99"},
        cluster={"groups": groups},
        effective={
            "partitions": {"compute": "SPX", "memory": "NPS1"},
            "engine": {"power": {"perf_determinism_mhz": 1700, "soc_pstate": 0}},
        },
    )
    need = needs(PLAN, composed, tmp_path, SETTINGS, CAPACITY)
    assert need.nodes == 6
    assert [one.model for one in need.accelerators] == [
        "AMD Instinct MI325X",
        "AMD Instinct MI300X",
    ]
    assert [(p.compute, p.memory) for p in need.partitions] == [("SPX", "NPS1")]
    offline, server = (need.clocks[f"llama2-70b-99 {s}"] for s in ("Offline", "Server"))
    assert offline and server and (offline.max_clock_mhz, server.max_clock_mhz) == (1700, 1700)


def test_a_gated_model_is_asked_for_until_it_is_there(tmp_path: Path) -> None:
    fetch = '{"endpoint":"https://hub.example","token":{"environment":"HF_TOKEN"}}'
    source = '{"name":"llama2-70b","source":"huggingface","repository":"meta-llama/L","fetch":'
    source += f"{fetch}}}"
    jobs = [j.model_copy(update={"config": source}) if j.step == "model" else j for j in PLAN.jobs]
    plan = PLAN.model_copy(update={"jobs": tuple(jobs)})
    need = needs(plan, CELLS, tmp_path, SETTINGS, CAPACITY)
    expected = Repository(name="meta-llama/L", endpoint="https://hub.example", token=SECRET)
    assert need.repositories == (expected,)
    assert need.memory_gb == pytest.approx(154)
    assert need.disk_gb > 140
    output = tmp_path / next(job.output for job in jobs if job.step == "model")
    output.parent.mkdir(parents=True)
    output.write_text("{}", encoding="utf-8")
    assert needs(plan, CELLS, tmp_path, SETTINGS, CAPACITY).repositories == ()


def test_systems_on_different_hardware_are_checked_one_by_one(tmp_path: Path) -> None:
    composed = [*CELLS, *cells(hardware=GPU)]
    with pytest.raises(UserError, match=r"runs on cpu, mi325x, .* as system=NAME"):
        needs(PLAN, composed, tmp_path, SETTINGS, CAPACITY)


def test_settings_of_amds_submission() -> None:
    sdxl = "stable-diffusion-xl"
    modes = [_modes(hardware_file(ROOT / "conf", name), sdxl) for name in ("mi300x", "mi325x")]
    assert [(mode.compute, mode.memory) for mode in modes] == [("CPX", "NPS4"), ("CPX", "NPS1")]
    assert _modes(hardware_file(ROOT / "conf", "mi355x"), "llama2-70b") == Modes()


def _modes(hardware: Mapping[str, Any], model: str) -> Modes:
    point = dict.fromkeys(SELECTORS, "") | {"by_model": model, "by_hardware": hardware["name"]}
    return Modes.model_validate(effective([hardware["partitions"]], point))


# ---- it only reads, and never breaks ------------------------------------------------------------


def test_nothing_is_changed_and_only_questions_are_asked(tmp_path: Path) -> None:
    machine(tmp_path, files=TUNED)
    before = contents(tmp_path)
    asked: list[str] = []

    def run(command: Sequence[str]) -> str:
        asked.append(" ".join(command))
        return printing(TOOLS)(command)

    state(
        wanted(nodes=2),
        SETTINGS,
        tmp_path,
        environment={},
        prober=Prober(run=run, root=tmp_path),
        ask=running,
    )
    assert contents(tmp_path) == before
    assert asked and not [c for c in asked if " set" in c or "--set" in c or "--reset" in c]
    assert {command.split()[0] for command in asked} <= {
        *("lscpu", "dmidecode", "numactl", "amd-smi", "rocm-smi", "ip", "ethtool", "lsblk"),
        *("docker", "podman", "ray"),
    }


def contents(root: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_values_of_many_cpus_are_named_once(tmp_path: Path) -> None:
    setting = SETTINGS.host[0]
    assert host_values(tmp_path, setting) == ()
    for cpu, text in enumerate(["powersave", "performance", "powersave"]):
        path = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"
        path.parent.mkdir(parents=True)
        path.write_text(f"{text}\n", encoding="utf-8")
    assert host_values(tmp_path, setting) == ("performance", "powersave")


@given(data=st.data())
def test_every_failure_and_warning_has_a_fix(tuned: State, data: st.DataObject) -> None:
    """Whatever of a machine is missing or different, there is a sentence and something to do."""
    mode = st.sampled_from([None, "SPX", "CPX", "auto"])
    device = tuned.node.accelerators[0].model_copy(
        update={
            "model": data.draw(st.sampled_from([None, "AMD Instinct MI325X", "NVIDIA H100"])),
            "vendor": data.draw(st.sampled_from(["AMD", "NVIDIA"])),
            "driver": data.draw(st.sampled_from([None, "6.10.5"])),
            "power_cap_w": data.draw(st.none() | st.floats(1, 2000)),
            "power_limit_w": data.draw(st.sampled_from([None, 1000.0])),
            "memory_mib": data.draw(st.none() | st.integers(1, 10**6)),
            "compute_partition": data.draw(mode),
            "memory_partition": data.draw(mode),
            "performance_level": data.draw(mode),
            "soc_pstate": data.draw(st.none() | st.integers(0, 3)),
        }
    )
    node = tuned.node.model_copy(
        update={
            "memory": data.draw(st.sampled_from([None, tuned.node.memory])),
            "accelerators": (device,) * data.draw(st.integers(0, 9)),
            "accelerator_count": data.draw(st.integers(0, 9)),
            "ray": data.draw(
                st.none() | st.builds(Ray, nodes=st.integers(0, 9), gpus=st.just(8.0))
            ),
        }
    )
    now = tuned.model_copy(
        update={
            "node": node,
            "free_gb": data.draw(st.floats(0, 1000)),
            "host": data.draw(st.sampled_from([{}, tuned.host])),
            "numa_library": data.draw(st.booleans()),
            "engines": {DOCKER.socket: data.draw(st.sampled_from([RUNS, answer_of_none(DOCKER)]))},
        }
    )
    need = wanted(nodes=data.draw(st.integers(1, 9)), environments=("cpu",))
    for finding in trouble(need, now):
        assert finding.says and finding.fix and "\n" not in finding.says + finding.fix


def test_the_command_prints_the_answer_and_its_status(
    tuned: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = tuned.model_copy(update={"numa_library": True})
    monkeypatch.setattr(doctor, "state", lambda *_, **__: now)
    assert call(["doctor"]) == 0
    assert "0 fail, 0 warn: a run may start" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "state", lambda *_, **__: now.model_copy(update={"free_gb": 0.0}))
    monkeypatch.setattr(doctor, "needs", lambda *_: wanted(disk_gb=12.0))
    assert call(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "fail  disk" in text and "fix: free 12 GB there" in text
    assert "1 fail, 0 warn: a run would fail: fix every line with fail" in text
    with pytest.raises(UsageError, match="doctor takes no '--fix'"):
        call(["doctor", "--fix"])
    assert call(["doctor", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["experiment"], said["may_start"]) == ("rehearsal", False)
    failed = [one for one in said["findings"] if one["level"] == "fail"]
    assert [(one["check"], "free 12 GB" in one["fix"]) for one in failed] == [("disk", True)]
