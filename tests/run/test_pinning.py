"""Which CPUs and accelerators each engine of a node gets."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.run.engines.pinning import cpu_shares, cpus_by_numa_node, devices, parsed_list


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
