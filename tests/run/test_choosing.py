"""Which nodes serve which kind."""

from hypothesis import given
from hypothesis import strategies as st

from steps.config.accelerators import Accelerator
from steps.config.engine import NodeKind
from steps.run.placing.choosing import chosen


def kind(hardware: str, nodes: int, count: int = 8) -> NodeKind:
    accelerator = Accelerator(
        model=hardware, memory_gb=1.0, architecture="gfx942", count_per_node=count
    )
    return NodeKind(hardware=hardware, nodes=nodes, accelerator=accelerator)


Node = tuple[str, str, int]
"""A name, a model, how many."""


def wrong(wanted: NodeKind, node: Node) -> str:
    _, model, count = node
    fits = model == wanted.hardware and count >= wanted.accelerator.count_per_node
    return "" if fits else f"there are {count} × {model}"


def choose(kinds: list[NodeKind], nodes: list[Node]) -> tuple[list[str], str]:
    found, why = chosen(kinds, nodes, wrong, lambda node: node[0])
    return [name for name, _, _ in found], why


def test_nodes_come_kind_by_kind_whatever_their_order() -> None:
    nodes = [("c", "y", 8), ("a", "x", 8), ("b", "y", 8)]
    assert choose([kind("x", 1), kind("y", 2)], nodes) == (["a", "c", "b"], "")


def test_a_kind_with_fewer_takes_no_whole_node_from_one_that_needs_it() -> None:
    nodes = [("whole", "x", 8), ("seven", "x", 7)]
    assert choose([kind("x", 1, 7), kind("x", 1, 8)], nodes) == (["seven", "whole"], "")


def test_what_is_missing_is_said_with_every_other_nodes_reason() -> None:
    nodes = [("a", "x", 8), ("b", "x", 7), ("c", "y", 8)]
    names, why = choose([kind("x", 2)], nodes)
    assert names == []
    assert why == ("1 of 2 nodes of the cluster have 8 × x; b: there are 7 × x; c: there are 8 × y")


@given(
    st.lists(st.tuples(st.sampled_from("xy"), st.integers(1, 8)), max_size=8),
    st.lists(st.tuples(st.sampled_from("xy"), st.integers(1, 3), st.integers(1, 8)), max_size=4),
)
def test_every_chosen_node_is_of_its_kind_and_serves_once(
    there: list[tuple[str, int]], wanted: list[tuple[str, int, int]]
) -> None:
    nodes = [(f"n{number}", *one) for number, one in enumerate(there)]
    kinds = [kind(*one) for one in wanted]
    found, why = chosen(kinds, nodes, wrong, lambda node: node[0])
    if why:
        assert not found
        return
    assert len(set(found)) == len(found) == sum(one.nodes for one in kinds)
    order = [one for one in kinds for _ in range(one.nodes)]
    assert all(not wrong(one, node) for one, node in zip(order, found, strict=True))
