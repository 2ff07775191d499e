"""One command, several nodes, vLLM on each: real sshds, and what is measured holds.

vLLM computes on the CPU; that a node has accelerators is what its amd-smi says. All hosts are one
machine and share its cores, so their rate is no multiple of one's. Engines run in the checkout's
environment: test_images_on_nodes has the images.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.base.record import Manifest
from tests import hosts
from tests.conftest import ROOT, copy_project, reproduce
from tests.hosts import Host

pytestmark = [pytest.mark.e2e, pytest.mark.long]

LIMIT_S = 3600
CLUSTERS = {
    "2 nodes": ["mi300x"] * 2,
    "3 nodes": ["mi300x"] * 3,
    "4 nodes": ["mi300x"] * 4,
    "8 nodes": ["mi300x"] * 8,
    "4 and 2 nodes": ["mi300x"] * 4 + ["mi325x"] * 2,
}
MEMORY_GB = {"mi300x": 192, "mi325x": 256}

HARDWARE = """\
defaults: [cpu, _self_]
name: acme-{kind}
accelerator: {{model: AMD Instinct {model}, memory_gb: {memory}, architecture: gfx942,
  count_per_node: 8}}
engine:
  placement: {{in_process: false, pinned: false, engines_per_node: 1,
    device_variable: HIP_VISIBLE_DEVICES, silence_limit_s: 120}}
"""
SYSTEM = """\
# @package _global_
defaults:
  - rehearsal-cpu
  - override /hardware: acme-mi300x
  - override /cluster: acme
  - _self_
system:
  name: acme
  engine: {by_hardware: {acme-mi325x: {arguments: {max_num_seqs: 160}}}}
  fields: {system_name: Acme's cluster}
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    home = copy_project(tmp_path / "clone")
    (home / ".envs").symlink_to(ROOT / ".envs")
    for kind, memory in MEMORY_GB.items():
        text = HARDWARE.format(kind=kind, model=kind.upper(), memory=memory)
        (home / f"conf/hardware/acme-{kind}.yaml").write_text(text, encoding="utf-8")
    (home / "conf/system/acme.yaml").write_text(SYSTEM, encoding="utf-8")
    return home


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """Names of hosts by kind."""
    if reason := hosts.unusable():
        pytest.skip(reason)
    names = {"mi300x": [f"node-{n}" for n in range(8)], "mi325x": ["node-8", "node-9"]}
    known = {name: Host(kind) for kind, of_kind in names.items() for name in of_kind}
    with (
        hosts.serving(tmp_path_factory.mktemp("ssh"), known) as environment,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PATH", environment["PATH"])
        yield names


def cluster(home: Path, kinds: list[str], served: dict[str, list[str]]) -> list[str]:
    """The hosts that a cluster of these kinds has, which becomes that of the system."""
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    groups = [f"{{hardware: acme-{kind}, nodes: {count}}}" for kind, count in counts.items()]
    text = f"name: acme\ngroups: [{', '.join(groups)}]\n"
    (home / "conf/cluster/acme.yaml").write_text(text, encoding="utf-8")
    return [name for kind, count in counts.items() for name in served[kind][:count]]


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_is_measured_by_one_command(
    name: str, clone: Path, served: dict[str, list[str]]
) -> None:
    names = cluster(clone, CLUSTERS[name], served)
    asked = ["system=acme", "scenario=Offline,Server", f"cluster.hosts=[{','.join(names)}]"]
    status, text = reproduce(clone, *asked, limit_s=LIMIT_S)
    assert status == 0, text
    home = clone / "results/rehearsal"
    summary = json.loads((home / "report/summary.json").read_text(encoding="utf-8"))
    assert len(summary["cells"]) == 2 and summary["may_be_submitted"] is False
    for cell in summary["cells"]:
        assert cell["value"] > 0 and cell["scores"]["exact_match"] >= 90
        assert {gate["name"]: gate["passed"] for gate in cell["gates"]}["99"]
    for scenario in ("Offline", "Server"):
        (run,) = home.glob(f"runs/acme/*/*/*/{scenario}/performance_run")
        engines = Manifest.read(run / "manifest.json").result["engines"]
        where = {engine["name"].partition("(")[2].removesuffix(")") for engine in engines}
        kinds = zip(names, CLUSTERS[name], strict=True)
        assert where == {f"{host}, acme-{kind}" for host, kind in kinds}
        assert all(engine["samples"] for engine in engines)
    described = json.loads(next(home.glob("submission/open/*/systems/acme-*.json")).read_text())
    assert described["number_of_nodes"] == str(len(names))
    status, text = reproduce(clone, *asked)
    assert status == 0 and text == "rehearsal: nothing to do\n", text
