"""One command, several nodes, in images: real sshds, real containers, LoadGen in one and engines in
those of the nodes.

Accelerators are what amd-smi says on each host, and device files; engines compute nothing. All
hosts are one machine, and so share its container engine.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steps.base.record import Manifest
from steps.config.runtime import EngineAddress
from steps.machine.runtime.host import CHECKOUT, connected
from tests import hosts
from tests.conftest import ROOT, copy_project, reproduce
from tests.e2e.test_container_engines import BASE, require_base
from tests.hosts import Host

pytestmark = pytest.mark.e2e

PODMAN = EngineAddress(engine="podman", socket="unix:///run/podman/podman.sock")
KNOWN = {
    "node-a": Host("mi325x"),
    "node-b": Host("mi300x"),
    "node-c": Host("mi300x", count=7),
    **{f"mi300x-{number}": Host("mi300x") for number in range(8)},
    **{f"mi325x-{number}": Host("mi325x") for number in range(2)},
}
LIMIT_S = 900
PER_NODE = 2

HARDWARE = """\
defaults: [null-engine, _self_]
name: {name}
accelerator: {{model: AMD Instinct {model}, memory_gb: {memory}, architecture: gfx942,
  count_per_node: 8}}
runtime: {{devices: [{device}], shm_size_gb: 1}}
engine:
  start_limit_s: 240 # of sixteen engines on two cores
  arguments: {{max_num_seqs: 16}}
  placement: {{device_variable: HIP_VISIBLE_DEVICES, on_failure: redispatch}}
"""
SYSTEM = """\
# @package _global_
defaults:
  - null-engine
  - override /hardware: acme-mi325x
  - override /cluster: acme
  - _self_
system:
  name: acme
  target_qps: {Offline: 400, Server: 100, Interactive: 100}
"""
CLUSTER = """\
name: acme
groups: [{hardware: acme-mi325x, nodes: 1}, {hardware: acme-mi300x, nodes: 1}]
"""


def checkout(home: Path, device: Path) -> Path:
    """A copy of the project with the system acme, whose nodes' accelerators are this device."""
    copied = copy_project(home)
    (copied / ".envs").symlink_to(ROOT / ".envs")
    for name, model, memory in (("acme-mi325x", "MI325X", 256), ("acme-mi300x", "MI300X", 192)):
        text = HARDWARE.format(name=name, model=model, memory=memory, device=device)
        (copied / f"conf/hardware/{name}.yaml").write_text(text, encoding="utf-8")
    (copied / "conf/system/acme.yaml").write_text(SYSTEM, encoding="utf-8")
    (copied / "conf/cluster/acme.yaml").write_text(CLUSTER, encoding="utf-8")
    return copied


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if reason := hosts.unusable():
        pytest.skip(reason)
    require_base(PODMAN)
    device = tmp_path_factory.mktemp("devices") / "kfd"
    os.mknod(device, 0o20666, os.makedev(1, 3))
    home = checkout(tmp_path_factory.mktemp("clone"), device)
    with (
        hosts.serving(tmp_path_factory.mktemp("ssh"), KNOWN) as environment,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PATH", environment["PATH"])
        yield home


CLUSTERS = {
    "2 nodes": {"mi300x": 2},
    "3 nodes": {"mi300x": 3},
    "4 nodes": {"mi300x": 4},
    "8 nodes": {"mi300x": 8},
    "4 and 2 nodes": {"mi300x": 4, "mi325x": 2},
}


def asked(*names: str, scenario: str = "Offline") -> list[str]:
    return [
        *("experiment=null-engine", "system=acme", f"scenario={scenario}", "runtime=podman"),
        *(f"hardware.containers.engine.base={BASE}", f"cluster.hosts=[{','.join(names)}]"),
    ]


UNTIL = ["--", "--until", "performance_check"]


def containers(home: Path) -> list[dict[str, Any]]:
    with connected(PODMAN) as client:
        found = client.containers.list(all=True, filters={"label": f"{CHECKOUT}={home}"})
        return [dict(one.attrs) for one in found]


def test_every_nodes_container_is_as_on_one_node(clone: Path) -> None:
    """The same image, devices, mounts, limits and user, for LoadGen's and for each node's."""
    longer = "length.min_duration_ms=20000"
    running = subprocess.Popen(
        [str(clone / "reproduce"), *asked("node-a", "node-b"), longer, *UNTIL],
        cwd=clone,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    limit = time.monotonic() + LIMIT_S
    found: list[dict[str, Any]] = []
    while len(found) < 3 and running.poll() is None:
        assert time.monotonic() < limit
        found = [one for one in containers(clone) if one["State"]["Running"]]
        time.sleep(0.5)
    text, _ = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 0, text
    assert len(found) == 3, text
    for same in ("Image",):
        assert len({str(one[same]) for one in found}) == 1
    on_nodes = [one for one in found if one["Config"]["Hostname"] in KNOWN]
    assert len({str(one["HostConfig"]["Devices"]) for one in on_nodes}) == 1
    assert all(one["HostConfig"]["Devices"] for one in on_nodes)
    for same in ("ShmSize", "NetworkMode", "ReadonlyRootfs", "CapDrop"):
        assert len({str(one["HostConfig"][same]) for one in found}) == 1, same
    assert len({one["Config"]["User"] for one in found}) == 1
    assert len({str(sorted(m["Destination"] for m in one["Mounts"])) for one in found}) == 1
    names = {one["Config"]["Hostname"] for one in found}
    assert {"node-a", "node-b"} <= names
    assert containers(clone) == [], "all are removed"
    (path,) = (clone / "results").glob("null-engine/runs/acme/*/*/*/Offline/performance_run")
    result = Manifest.read(path / "manifest.json").result
    assert len(result["engines"]) == 2 * PER_NODE
    assert {engine["name"].partition("(")[2] for engine in result["engines"]} == {
        *("node-a, acme-mi325x)", "node-b, acme-mi300x)"),
    }
    assert all(engine["samples"] for engine in result["engines"])
    assert (
        "podman" not in result["engine"]["name"] and "built as sha256:" in result["engine"]["image"]
    )


def test_a_node_with_seven_of_eight_is_named_before_loadgen_starts(clone: Path) -> None:
    status, text = reproduce(
        clone, *asked("node-a", "node-c", scenario="Server"), *UNTIL, limit_s=LIMIT_S
    )
    assert status != 0
    assert "8 × AMD Instinct MI300X on host node-c, but there are 7 × AMD Instinct MI300X" in text
    assert "Traceback" not in text
    assert containers(clone) == []


@pytest.mark.long
@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters_of_every_published_size(clone: Path, name: str) -> None:
    """One command, both scenarios, a container on every node."""
    counts = CLUSTERS[name]
    names = [f"{kind}-{number}" for kind, count in counts.items() for number in range(count)]
    groups = [f"{{hardware: acme-{kind}, nodes: {count}}}" for kind, count in counts.items()]
    of = asked(*names, scenario="Offline,Server")
    chosen = [*of, f"cluster.groups=[{','.join(groups)}]", "hardware=acme-mi300x"]
    chosen.append(f"set.Offline.target_qps={200 * len(names)}")  # what its engines can answer
    status, text = reproduce(clone, *chosen, *UNTIL, limit_s=LIMIT_S)
    assert status == 0, text
    for scenario in ("Offline", "Server"):
        runs = clone.glob(f"results/null-engine/runs/acme/*/*/*/{scenario}/performance_run")
        (newest,) = runs
        engines = Manifest.read(newest / "manifest.json").result["engines"]
        assert len(engines) == len(names) * PER_NODE
        where = {engine["name"].partition("(")[2].partition(",")[0] for engine in engines}
        assert where == set(names)
        assert all(engine["samples"] for engine in engines)
    assert containers(clone) == []
