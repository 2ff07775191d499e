"""The doctor asks every node at once: real sshds, a line a node, and what is wrong by name."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.commands.doctor import nodes
from steps.commands.doctor.checks import findings
from steps.commands.doctor.nodes import asked
from steps.commands.doctor.settings import Clock
from steps.plan.make import make
from steps.plan.plan import Plan
from steps.schedule.launching import starts_nodes
from tests import hosts
from tests.commands.test_doctor import SETTINGS, TUNED, read, wanted
from tests.conftest import MIXED, ROOT, planned
from tests.hosts import Host

KNOWN = {
    "node-a": Host("mi325x"),
    "node-b": Host("mi300x"),
    "node-b.site": Host("mi300x"),
    "node-d": Host("mi300x", count=7),
    "node-e": Host("mi325x", driver="6.12.12"),
    "node-s": Host("mi300x", slow_s=30),
}


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if reason := hosts.unusable():
        pytest.skip(reason)
    with hosts.serving(tmp_path_factory.mktemp("ssh"), KNOWN, ["node-c"]) as environment:
        yield environment


@pytest.fixture
def here(ssh: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", ssh["PATH"])


def plan_of(tmp_path: Path, *names: str) -> Plan:
    site = tmp_path / "acme-mixed.yaml"
    site.write_text(MIXED, encoding="utf-8")
    groups = [{"hardware": KNOWN[name].model, "nodes": 1} for name in names if name in KNOWN]
    groups += [{"hardware": "mi300x", "nodes": 1} for name in names if name not in KNOWN]
    kinds = ",".join(f"{{hardware: {g['hardware']}, nodes: 1}}" for g in groups)
    chosen = ["experiment=rehearsal", "scenario=Offline"]
    chosen += [f"cluster.groups=[{kinds}]", f"cluster.hosts=[{','.join(names)}]"]
    return make(ROOT, chosen, site)


@pytest.mark.engine
def test_every_node_has_its_line(here: None, tmp_path: Path) -> None:
    begun = time.monotonic()
    found = asked(plan_of(tmp_path, "node-a", "node-b"), {}, in_job=False)
    assert [(one.level, one.says) for one in found.findings] == [
        ("ok", "2 answer and have what the plan needs")
    ]
    header, _, first, second = found.table.splitlines()
    assert header.split()[:3] == ["node", "accelerators", "modes"]
    assert first.startswith("node-a  8 × AMD Instinct MI325X  SPX/NPS1")
    assert second.startswith("node-b  8 × AMD Instinct MI300X  SPX/NPS1")
    assert time.monotonic() - begun < 60


@pytest.mark.engine
def test_what_is_wrong_is_said_of_each_by_name(here: None, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "node-a", "node-b", "node-b.site", "node-c", "node-d", "node-e")
    found = asked(
        plan, {"llama2-70b Offline": Clock(max_clock_mhz=1400, soc_pstate=1)}, in_job=False
    )
    said = [one.says for one in found.findings if one.level == "fail"]
    for words in (
        "host node-c can't be reached",
        "node-b and node-b.site are one machine",
        "node-e: driver 6.12.12 on AMD Instinct MI325X",
        "node-d: there are 7 × AMD Instinct MI300X",
    ):
        assert any(words in one for one in said), (words, said)
    assert len(found.table.splitlines()) == 2 + 6
    assert any("clocks" in one.check for one in found.findings if one.level == "warn")


@pytest.mark.engine
def test_a_node_that_answers_slowly_costs_its_limit_and_no_more(
    here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "ASK_LIMIT_S", 8.0)
    begun = time.monotonic()
    found = asked(plan_of(tmp_path, "node-a", "node-s"), {}, in_job=False)
    assert time.monotonic() - begun < 28
    (why,) = [one.says for one in found.findings if one.level == "fail" and "node-s" in one.says]
    assert "node-s gave no answer in time" in why
    assert "node-a" in found.table


def test_a_plan_of_one_machine_asks_no_node() -> None:
    found = asked(planned(), {}, in_job=False)
    assert (found.table, found.findings) == ("", ())
    assert not any(map(starts_nodes, planned().jobs))
    engine = planned("experiment=mangoboost-v5.1", "system=mangoboost-mi300x")
    assert not any(map(starts_nodes, engine.jobs)), "an engine that is only planned"


def test_outside_of_a_job_its_nodes_are_not_there_to_be_asked() -> None:
    several = ("experiment=dell-mangoboost-v5.1", "system=dell-mangoboost-mi300x-2-nodes")
    plan = planned(*several, "engine=vllm", "scheduler=slurm")
    (one,) = asked(plan, {}, in_job=False).findings
    assert (one.level, one.check) == ("warn", "nodes")
    assert "--nodes=2" in one.fix


def test_this_machine_needs_no_accelerators_for_engines_on_nodes(tmp_path: Path) -> None:
    need = wanted(starts_nodes=True, nodes=2)
    found = findings(need, read(tmp_path, need, TUNED), SETTINGS)
    checked = {one.check for one in found}
    assert not checked & {"accelerators", "driver", "Ray", "compute partition"}
