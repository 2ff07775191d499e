"""Which CPUs and accelerators each engine of a node gets."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.config.layers import merged
from steps.config.runs import PerformanceRunConfig
from steps.run.engines import pinning
from steps.run.engines.pinning import (
    busy,
    cpu_shares,
    cpus_by_numa_node,
    devices,
    keep_to,
    parsed_list,
    quota,
    split,
)
from tests.conftest import planned


@given(st.integers(1, 64), st.integers(1, 256))
def test_every_engine_gets_its_even_share(engines: int, cpus: int) -> None:
    shares = cpu_shares(engines, list(range(cpus)))
    sizes = [len(share) for share in shares]
    assert len(shares) == engines
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    if engines <= cpus:
        assert [cpu for share in shares for cpu in share] == list(range(cpus))


def test_cpus_are_shared_numa_node_by_numa_node(tmp_path: Path) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    for node, cpus in (("node0", allowed[::2]), ("node1", allowed[1::2])):
        (tmp_path / node).mkdir()
        (tmp_path / node / "cpulist").write_text(",".join(map(str, cpus)) + "\n")
    (tmp_path / "node10").mkdir()
    (tmp_path / "node10" / "cpulist").write_text("\n")
    assert cpus_by_numa_node(tmp_path) == [*allowed[::2], *allowed[1::2]]


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-3,8,10-11\n", [0, 1, 2, 3, 8, 10, 11]), ("\n", []), ("5", [5])]
)
def test_the_kernels_lists(text: str, cpus: list[int]) -> None:
    assert parsed_list(text) == cpus


def test_accelerators_are_numbered_in_order() -> None:
    assert [devices(engine, 2) for engine in range(3)] == ["0,1", "2,3", "4,5"]


@given(st.integers(1, 8), st.sets(st.integers(0, 40), min_size=2), st.data())
def test_an_engine_gets_the_idlest_and_loadgen_the_others(
    threads: int, cpus: set[int], data: st.DataObject
) -> None:
    ordered = data.draw(st.permutations(sorted(cpus)))
    load = data.draw(st.dictionaries(st.sampled_from(ordered), st.floats(0, 1)))
    threads = min(threads, len(ordered) - 1)
    engine, others = split(threads, ordered, load)
    assert len(engine) == threads
    assert sorted(engine + others) == sorted(cpus)
    least = min(load.get(cpu, 0.0) for cpu in others)
    assert max(load.get(cpu, 0.0) for cpu in engine) <= least + 0.1


def test_cpus_are_watched(tmp_path: Path) -> None:
    """Of 100 ticks each, the first CPU was idle 20, the second 10 and 80 waiting for a disk."""
    texts = [
        "cpu  9 9\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 5 5 5 5 5 5 5 5 9 9\nintr 1\n",
        "cpu  9 9\ncpu0 70 0 10 20 0 0 0 0 0 0\ncpu1 15 5 5 15 85 5 5 5 9 9\nintr 2\n",
    ]
    stat = tmp_path / "stat"
    stat.write_text(texts[0])

    def later() -> None:
        stat.write_text(texts[1])

    timer = threading.Timer(0.02, later)
    timer.start()
    found = busy(0.2, stat)
    assert found == {0: pytest.approx(0.8), 1: pytest.approx(0.1)}
    assert busy(0.0, tmp_path / "none") == {}


def engine(**changes: Any) -> Any:
    raw = json.loads(next(j.config for j in planned().jobs if j.step == "performance_run"))
    whole = merged(raw, {"engine": changes})
    return PerformanceRunConfig.model_validate_json(json.dumps(whole)).engine


@pytest.mark.parametrize("cpus", [1, 2, 5])
def test_who_has_one_cpu_or_needs_all_shares_them(
    monkeypatch: pytest.MonkeyPatch, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(100, 100 + cpus)))
    monkeypatch.setattr(pinning, "NODES", Path("/nowhere"))
    monkeypatch.setattr(pinning, "busy", lambda seconds: {})
    apart = pinning.apart(engine(threads=2))
    if cpus <= 2:
        assert apart == ((), ())
    else:
        assert apart == ((103, 104), (100, 101, 102))
    assert pinning.apart(engine(placement={"pinned": False})) == ((), ())


def test_a_cpu_that_was_taken_away_binds_nothing() -> None:
    before = os.sched_getaffinity(0)
    assert not keep_to({4095})
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "rubbish\n"}, None),
        ({"cpu.max": "5 0\n"}, None),
        ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "70000 100000\n"}, 0.7),
        ({"cpu/jobs/cpu.cfs_quota_us": "9\n", "cpu/jobs/cpu.cfs_period_us": "10\n"}, 0.9),
        ({"other/cpu.max": "1 100000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_quota(tmp_path: Path, files: dict[str, str], found: float | None) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    member = tmp_path / "member"
    member.write_text("5:memory:/other\n4:cpu,cpuacct:/jobs/1\n0::/a/b\n")
    assert quota(tmp_path, member) == found
    assert quota(tmp_path / "none", tmp_path / "none") is None
