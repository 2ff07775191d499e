"""Which machines a plan's systems accept, by what the vendors' tools print."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from steps.machine.look import Look
from steps.machine.probes.machine import Prober
from steps.plan.make import make
from tests.amd_nodes import install, seven, whole
from tests.conftest import MIXED, ROOT
from tests.recorded_machine import RECORDED, printing

MODELS = {"mi300x": 192, "mi325x": 256, "mi355x": 288}
ARCHITECTURES = {"mi300x": "gfx942", "mi325x": "gfx942", "mi355x": "gfx950"}
MODES = {"compute": "SPX", "memory": "NPS1"}
CONFIG = json.dumps({"engine": {"placement": {"kinds": [{"modes": MODES}]}}})
RUN = [{"step": "performance_run", "config": CONFIG}]

Change = Callable[[list[Any]], list[Any]]
Cell = Callable[[str], tuple[dict[str, Any], list[dict[str, Any]]]]


def needed(name: str) -> dict[str, Any]:
    return {
        "system": f"amd-{name}",
        "model": f"AMD Instinct {name.upper()}",
        "architecture": ARCHITECTURES[name],
        "memory_gb": float(MODELS[name]),
        "count_per_node": 8,
        "nodes": 1,
    }


def devices(name: str) -> list[Any]:
    read = json.loads((RECORDED / f"amd-smi-static-{name}.json").read_text(encoding="utf-8"))
    return list(read["gpu_data"] if isinstance(read, dict) else read)


def look(found: list[Any], folder: Path) -> Look:
    """amd-smi alone, which prints these devices."""

    def run(command: Sequence[str]) -> str:
        if command[0] == "amd-smi":
            return json.dumps(found)
        return printing({})(command)

    return Look(Prober(run=run, root=folder))


@pytest.mark.parametrize("there", MODELS)
@pytest.mark.parametrize("wanted", MODELS)
def test_only_its_own_accelerators_do(there: str, wanted: str, tmp_path: Path) -> None:
    said = look(devices(f"8x{there}"), tmp_path).missing(needed(wanted), RUN)
    if there == wanted:
        assert said == ""
    else:
        assert said == (
            f"system amd-{wanted} needs 8 × AMD Instinct {wanted.upper()}, but on this machine "
            f"there are 8 × AMD Instinct {there.upper()}"
        )


def without_driver(found: list[Any]) -> list[Any]:
    found[3]["driver"] = {"name": "amdgpu", "version": "N/A"}
    return found


def of_two_drivers(found: list[Any]) -> list[Any]:
    found[3]["driver"]["version"] = "6.8.5"
    return found


def in_nps4(found: list[Any]) -> list[Any]:
    for device in found:
        device["partition"]["memory_partition"] = "NPS4"
    return found


def unnamed(found: list[Any]) -> list[Any]:
    found[0]["asic"] |= {"market_name": "N/A", "target_graphics_version": "N/A"}
    return found


def of_less_memory(found: list[Any]) -> list[Any]:
    found[7]["vram"]["size"]["value"] = 131072
    return found


def of_two_models(found: list[Any]) -> list[Any]:
    return [*found[:4], *devices("8xmi325x")[4:]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda found: found[:7], "there are 7 × AMD Instinct MI300X"),
        (lambda found: devices("64xmi300x-cpx"), "there are some in CPX, not SPX"),
        (of_two_models, "there are 4 × AMD Instinct MI300X and 4 × AMD Instinct MI325X"),
        (in_nps4, "there are some in NPS4, not NPS1"),
        (of_less_memory, "there are some with 128 GB, not 192"),
        (without_driver, "no tool reports the driver's version"),
        (of_two_drivers, "there are several drivers, 6.10.5 and 6.8.5"),
        (
            unnamed,
            "there are 1 × unnamed of AMD and 7 × AMD Instinct MI300X, and no tool names the model "
            "of all",
        ),
        (lambda found: [], "there is no accelerator of AMD"),
    ],
)
def test_what_is_wrong_is_one_sentence(change: Change, says: str, tmp_path: Path) -> None:
    said = look(change(devices("8xmi300x")), tmp_path).missing(needed("mi300x"), RUN)
    assert said == (f"system amd-mi300x needs 8 × AMD Instinct MI300X, but on this machine {says}")


def test_a_device_on_the_bus_that_no_tool_lists_is_told_from_none(tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/pci/devices/0000:05:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x1002\n", encoding="ascii")
    (device / "class").write_text("0x120000\n", encoding="ascii")
    said = Look(Prober(run=printing({}), root=tmp_path)).missing(needed("mi300x"), RUN)
    assert "no tool lists any (amd-smi is not installed)" in said


def test_tools_are_asked_once_for_all_systems_of_a_vendor(tmp_path: Path) -> None:
    asked: list[str] = []

    def run(command: Sequence[str]) -> str:
        asked.append(" ".join(command))
        return json.dumps(devices("8xmi325x")) if command[0] == "amd-smi" else "{}"

    once = Look(Prober(run=run, root=tmp_path))
    for name in MODELS:
        once.missing(needed(name), RUN)
    assert len(asked) == len(set(asked)), "each question of each tool"
    assert once.missing({**needed("mi300x"), "nodes": 4}, RUN) == ""  # looked at on each node
    assert once.missing({**needed("mi300x"), "model": None}, RUN) == ""


# ---- several nodes -------------------------------------------------------------------------------

SSH = """\
#!/bin/sh
while [ $# -gt 2 ]; do shift; done
if [ ! -d {home}/$1 ]; then
    echo "ssh: connect to host $1 port 22: Connection refused" >&2
    exit 255
fi
echo $1 >>{home}/asked
PATH={home}/$1:/usr/bin:/bin exec /bin/sh -c "$2"
"""
"""Stands in for ssh: each host is a folder with the tools that it has."""


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """node-a to node-c: whole, with seven, without tools. There is no node-d."""
    home = tmp_path / "hosts"
    install(home / "node-a", whole("mi325x"))
    install(home / "node-b", seven("mi325x"))
    (home / "node-c").mkdir()
    install(home / "node-e", whole("mi300x"))
    (home / "bin").mkdir()
    (home / "bin/ssh").write_text(SSH.format(home=home), encoding="utf-8")
    (home / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")
    return home


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    """Two nodes of MI325X and one of MI300X, on the hosts that are named: the system, and a run."""
    site = tmp_path_factory.mktemp("site") / "acme-mixed.yaml"
    site.write_text(MIXED, encoding="utf-8")
    chosen = ["experiment=rehearsal", "scenario=Server", "cluster.hosts=[host-1,host-2,host-3]"]
    plan = make(ROOT, chosen, site)
    run = next(job for job in plan.jobs if job.step == "performance_run").model_dump(mode="json")

    def on(names: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        config = json.loads(run["config"])
        assert len(config["engine"]["placement"]["hosts"]) == 3
        config["engine"]["placement"]["hosts"] = names.split(",")
        return plan.requirements[0].model_dump(mode="json"), [{**run, "config": json.dumps(config)}]

    return on


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("node-a,node-b,node-e", "MI325X on host node-b, but there are 7 × AMD Instinct MI325X"),
        (
            "node-a,node-c,node-e",
            "MI325X on host node-c, but no tool there lists any (amd-smi is not installed)",
        ),
        (
            "node-a,node-d,node-e",
            "MI325X on host node-d, but it can't be reached: ssh: connect to host node-d port 22: "
            "Connection refused; `ssh -o BatchMode=yes node-d true` must work without a question",
        ),
    ],
)
def test_hosts_are_asked_before_anything_is_prepared(
    names: str, says: str, hosts: Path, cell: Cell
) -> None:
    said = Look().missing(*cell(names))
    assert said == f"system acme-mixed needs 8 × AMD Instinct {says}"


def test_hosts_of_the_named_kinds_lack_nothing_and_are_asked_once(hosts: Path, cell: Cell) -> None:
    install(hosts / "node-f", whole("mi325x"))
    asked, look = cell("node-a,node-f,node-e"), Look()
    assert look.missing(*asked) == ""
    before = (hosts / "asked").read_text()
    assert look.missing(*asked) == ""
    assert (hosts / "asked").read_text() == before
