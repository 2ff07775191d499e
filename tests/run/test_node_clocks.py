"""Clocks of several nodes over SSH: each sets its own for a run and resets them, however that ends.

The hosts are real sshds on this machine; their tools are scripts that print what is recorded, and
sudo is one that notes what it is asked.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.commands import cli
from steps.machine.probes.machine import Prober
from steps.plan.plan import Job, Plan
from steps.run.placing import node_clocks
from steps.schedule import launching
from tests import amd_nodes, hosts
from tests.conftest import ROOT, copy_project, planned
from tests.hosts import Host
from tests.running import command_of

HOSTS = {"node-g": Host("mi300x"), "node-h": Host("mi325x")}
LIMIT_S = 180
AT_300X = ["rocm-smi --setperfdeterminism 1300", "amd-smi set --soc-pstate 0 -g all"]
UNDO_300X = ["rocm-smi --setperfdeterminism 1400", "amd-smi set --soc-pstate 1 -g all"]
"""The recorded MI300X are at 1400 MHz and SoC policy 1, the MI325X at their default and 0."""
AT_325X = ["rocm-smi --setperfdeterminism 1800"]
UNDO_325X = ["rocm-smi --resetperfdeterminism"]

CLUSTER = ("experiment=dell-mangoboost-v5.1", "engine=llama2-70b", "site.sudo=true")
TWO = (*CLUSTER, "system=dell-mangoboost-mi300x-2-nodes")


def run_of(plan: Plan) -> Job:
    return next(job for job in plan.jobs if job.step == "performance_run")


def order_of(words: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(words[words.index("steps.run.placing.node_clocks") + 1])
    return made


def kind_of(hardware: str) -> dict[str, Any]:
    """A kind of node as a plan has it."""
    plan = planned("experiment=amd-v5.1", f"system=amd-{hardware}", "benchmark=llama2-70b-99.9")
    made: dict[str, Any] = json.loads(run_of(plan).config)["engine"]["placement"]["kinds"][0]
    return made


def test_the_nodes_of_a_run_are_told_its_clocks_where_the_site_allows_it() -> None:
    plan = planned(*TWO, "cluster.hosts=[node-g,node-h]")
    job = run_of(plan)
    order = order_of(launching.launcher(job, plan, Path("plan.json")))
    (one,) = order["kinds"]
    assert (order["address"], order["hosts"]) == ("ssh", ["node-g", "node-h"])
    assert one["kind"]["hardware"] == "mi300x" and one["power"]["perf_determinism_mhz"] > 0
    assert node_clocks.Order.model_validate_json(json.dumps(order)).checkout == str(ROOT)
    asked = plan.model_copy(update={"sudo": False})
    assert "node_clocks" not in " ".join(launching.launcher(job, asked, Path("plan.json")))
    assert launching.unclocked(job, plan) == ""


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ((*TWO,), "not on those of a Ray cluster (auto): name them, or set site.sudo=false"),
        ((*TWO, "scheduler=slurm"), "and slurm starts these: set clocks in its prolog"),
        ((*CLUSTER, "system=dell-mangoboost-mi300x", "scheduler=slurm"), "slurm starts these"),
    ],
)
def test_where_nothing_can_set_them_it_is_one_sentence(
    overrides: tuple[str, ...], says: str
) -> None:
    plan = planned(*overrides)
    said = launching.unclocked(run_of(plan), plan)
    assert says in said and "\n" not in said
    assert launching.unclocked(run_of(plan), plan.model_copy(update={"sudo": False})) == ""


def test_a_node_takes_the_clocks_of_its_own_kind(tmp_path: Path) -> None:
    powers = {"mi300x": 1300, "mi325x": 1800}
    wanted = node_clocks.Wanted.model_validate_json(
        json.dumps(
            {
                "kinds": [
                    {"kind": kind_of(n), "power": {"perf_determinism_mhz": mhz, "soc_pstate": 0}}
                    for n, mhz in powers.items()
                ]
            }
        )
    )
    for name, mhz in powers.items():
        prober = Prober(run=amd_nodes.printing(amd_nodes.whole(name)), root=tmp_path)
        assert node_clocks.power_of(wanted, prober).perf_determinism_mhz == mhz
    other = Prober(run=amd_nodes.printing(amd_nodes.seven("mi300x")), root=tmp_path)
    with pytest.raises(UserError, match=r"of no kind \(mi300x: there are 7 × .*; mi325x: there"):
        node_clocks.power_of(wanted, other)


def test_a_node_that_cannot_read_what_resets_its_clocks_says_so(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/clocks-node-x.json").write_text("{", encoding="ascii")
    program = f"""
import sys
from pathlib import Path
from steps.run.placing import node_clocks
sys.exit(node_clocks.hold(Path({str(tmp_path)!r})))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        input=node_clocks.Wanted(kinds=()).model_dump_json() + "\n",
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    held = node_clocks.Held.model_validate_json(done.stdout)
    assert done.returncode == 1 and done.stderr == ""
    assert "clocks-node-x.json should say what resets a machine's clocks" in (held.error or "")


# ---- over SSH ------------------------------------------------------------------------------------


class Nodes:
    """Two hosts, and a checkout that they share."""

    def __init__(self, home: Path, checkout: Path, environment: dict[str, str]) -> None:
        self._home, self.checkout, self._environment = home, checkout, environment
        for name, host in HOSTS.items():
            rocm = ROOT / f"tests/recorded/rocm-smi-8x{host.model}.json"
            self.tool(name, "rocm-smi", f"cat {shlex.quote(str(rocm))}")
            self.sudo(name, 0)

    def tool(self, name: str, tool: str, text: str) -> None:
        path = self._home / name / tool
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
        path.chmod(0o755)

    def sudo(self, name: str, status: int) -> None:
        self.tool(name, "sudo", f'shift; echo "$*" >> {self._home / name}/asked; exit {status}')

    def asked(self, name: str) -> list[str]:
        path = self._home / name / "asked"
        return path.read_text(encoding="ascii").splitlines() if path.exists() else []

    def states(self) -> list[str]:
        return sorted(path.name for path in (self.checkout / "results").glob("clocks-*.json"))

    def begun(self, *command: str, names: Sequence[str] = tuple(HOSTS)) -> "subprocess.Popen[str]":
        kinds = [
            {"kind": kind_of(name), "power": {"perf_determinism_mhz": mhz, "soc_pstate": 0}}
            for name, mhz in (("mi300x", 1300), ("mi325x", 1800))
        ]
        order = {
            "kinds": kinds,
            "address": "ssh",
            "hosts": names,
            "checkout": str(self.checkout),
        }
        python = self.checkout / Path(sys.executable).relative_to(ROOT)
        words = [str(python), "-m", "steps.run.placing.node_clocks", json.dumps(order), "--"]
        return subprocess.Popen(
            [*words, *command],
            cwd=self.checkout,
            env={**os.environ, **self._environment},
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    if reason := hosts.unusable():
        pytest.skip(reason)
    checkout = copy_project(tmp_path / "checkout")
    (checkout / "results").mkdir()
    (checkout / ".envs").symlink_to(ROOT / ".envs")
    with hosts.serving(tmp_path / "ssh", HOSTS, ["node-y", "node-z"]) as environment:
        yield Nodes(tmp_path / "ssh", checkout, environment)


def until(what: Any) -> None:
    limit = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.05)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=LIMIT_S)
    return process.returncode, said


def refused(nodes: Nodes, *names: str) -> list[str]:
    """What is said of hosts that keep a run from starting."""
    ran = nodes.checkout / "ran"
    status, said = ended(nodes.begun("touch", str(ran), names=names))
    assert status == 1 and not ran.exists(), said
    return [line for line in said.splitlines() if line.startswith("error:")]


@pytest.mark.system
def test_each_node_is_set_before_the_run_and_reset_after_it(nodes: Nodes) -> None:
    during = nodes.checkout / "during"
    copied = f"mkdir {during}; cp results/clocks-*.json {during}; exit 3"
    status, said = ended(nodes.begun("sh", "-c", copied))
    assert status == 3, said
    assert nodes.asked("node-g") == AT_300X + UNDO_300X
    assert nodes.asked("node-h") == AT_325X + UNDO_325X
    assert sorted(path.name for path in during.iterdir()) == [
        "clocks-node-g.json",
        "clocks-node-h.json",
    ]
    assert nodes.states() == []
    assert "node-g: clocks: sudo -n rocm-smi --setperfdeterminism 1300" in said
    assert "sudo -n" in (nodes.checkout / "results/clocks.log").read_text(encoding="utf-8")


@pytest.mark.system
def test_one_node_that_refuses_keeps_the_run_from_starting_and_the_others_are_reset(
    nodes: Nodes,
) -> None:
    nodes.sudo("node-h", 1)
    (error,) = refused(nodes, *HOSTS)
    assert error.startswith("error: node-h: the clocks can't be set, and none is changed")
    assert nodes.asked("node-g") == AT_300X + UNDO_300X
    assert nodes.states() == []


@pytest.mark.system
def test_a_host_that_cannot_be_reached_keeps_the_run_from_starting(nodes: Nodes) -> None:
    (error,) = refused(nodes, "node-g", "node-z")
    assert error.startswith("error: host node-z can't be reached: ")
    assert nodes.states() == []
    assert nodes.asked("node-g") == AT_300X + UNDO_300X


@pytest.mark.system
def test_every_host_that_cannot_be_reached_is_named(nodes: Nodes) -> None:
    errors = refused(nodes, "node-y", "node-z")
    for host, error in zip(("node-y", "node-z"), errors, strict=True):
        assert error.startswith(f"error: host {host} can't be reached: ")


@pytest.mark.system
def test_a_break_while_clocks_are_set_resets_them_without_a_traceback(nodes: Nodes) -> None:
    asked = nodes.checkout / "asked-h"
    nodes.tool("node-h", "sudo", f"touch {asked}; sleep 2; exit 0")
    process = nodes.begun("touch", str(nodes.checkout / "ran"))
    until(asked.exists)
    process.send_signal(signal.SIGINT)
    status, said = ended(process)
    assert status == 130 and "Traceback" not in said, said
    assert not (nodes.checkout / "ran").exists()
    until(lambda: nodes.states() == [])
    assert nodes.asked("node-g") == AT_300X + UNDO_300X


@pytest.mark.system
def test_after_a_kill_nodes_reset_themselves_and_one_whose_agent_was_killed_next_time(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = nodes.begun("sh", "-c", "touch running; exec sleep 60")
    until((nodes.checkout / "running").exists)
    process.send_signal(signal.SIGKILL)
    ended(process)
    until(lambda: nodes.states() == [])
    assert nodes.asked("node-g") == AT_300X + UNDO_300X
    (nodes.checkout / "running").unlink()
    process = nodes.begun("sh", "-c", "touch running; exec sleep 60")
    until((nodes.checkout / "running").exists)
    for pid in holding(nodes.checkout):
        os.kill(pid, signal.SIGKILL)
    process.send_signal(signal.SIGKILL)
    ended(process)
    assert nodes.states() == ["clocks-node-g.json", "clocks-node-h.json"]
    monkeypatch.setattr(cli, "ROOT", nodes.checkout)
    cli.main(["ls"])  # this machine is neither
    assert nodes.states() == ["clocks-node-g.json", "clocks-node-h.json"]
    status, said = ended(nodes.begun("true"))
    assert status == 0, said
    assert "node-g: the last run was killed before it had reset this machine's clocks" in said
    assert nodes.states() == []
    assert nodes.asked("node-g")[-8:] == AT_300X + UNDO_300X + AT_300X + UNDO_300X


def holding(checkout: Path) -> list[int]:
    """Agents on the hosts that hold clocks, and no ssh to one; none of another checkout's."""
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    words = ((pid, command_of(pid).split()) for pid in pids)
    agent = ["-m", "steps.run.placing.agent", node_clocks.HOLD]
    found = [pid for pid, said in words if said[1:] == agent and "python" in said[0]]
    return [pid for pid in found if Path(f"/proc/{pid}/cwd").resolve() == checkout.resolve()]
