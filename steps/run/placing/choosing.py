"""Which nodes serve which kind: as few as fit, and the others' reasons where too few do."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from steps.config.engine import NodeKind

Node = TypeVar("Node")


def chosen(
    kinds: Sequence[NodeKind],
    nodes: Sequence[Node],
    wrong: Callable[[NodeKind, Node], str],
    named: Callable[[Node], str],
    missing: str = "",
) -> tuple[list[Node], str]:
    """Nodes for every kind, kind by kind, each in the order given; or none, and a sentence about
    what is missing.

    `wrong`: why a node isn't of a kind, "" if it is. `missing`: said where no node is left over. A
    kind with more accelerators chooses before one that a node with more would do for, too.
    """
    by_kind: dict[int, list[Node]] = {}
    left = list(nodes)
    for number in sorted(range(len(kinds)), key=lambda n: -kinds[n].accelerator.count_per_node):
        kind = kinds[number]
        reasons = [wrong(kind, node) for node in left]
        fitting = [node for node, reason in zip(left, reasons, strict=True) if not reason]
        if len(fitting) < kind.nodes:
            said = [f"{named(n)}: {why}" for n, why in zip(left, reasons, strict=True) if why]
            short = (
                f"{len(fitting)} of {kind.nodes} nodes of the cluster have "
                f"{kind.accelerator.count_per_node} × {kind.accelerator.model}"
            )
            return [], "; ".join([short, *(said or filter(None, [missing]))])
        by_kind[number] = fitting[: kind.nodes]
        left = [node for node in left if all(node is not taken for taken in by_kind[number])]
    return [node for number in range(len(kinds)) for node in by_kind[number]], ""
