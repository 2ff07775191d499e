"""Which CPUs and accelerators each engine of a node gets."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from steps.config.schema import Engine

NODES = Path("/sys/devices/system/node")


def take_place(config: Engine, place: int) -> str:
    """Bind this process to the CPUs and accelerators of one of its node's engines; returns the
    numbers of these.

    Before the engine is imported: accelerators are counted at import.
    """
    placement = config.placement
    if placement.pinned:
        shares = cpu_shares(placement.engines_per_node, cpus_by_numa_node())
        os.sched_setaffinity(0, shares[place])
    if placement.device_variable != "none":
        per_engine = getattr(config.arguments, "tensor_parallel_size", 1)
        os.environ[placement.device_variable] = devices(place, per_engine)
    return os.environ.get(placement.device_variable, "")


def cpu_shares(engines: int, ordered: Sequence[int]) -> list[tuple[int, ...]]:
    """Even shares of CPUs in this order; with fewer CPUs than engines, several share one."""
    if engines >= len(ordered):
        return [(ordered[n * len(ordered) // engines],) for n in range(engines)]
    edges = [n * len(ordered) // engines for n in range(engines + 1)]
    return [tuple(ordered[a:b]) for a, b in itertools.pairwise(edges)]


def cpus_by_numa_node(home: Path = NODES) -> list[int]:
    """CPUs that this process may use, NUMA node by NUMA node, so that shares stay within one.

    Memory follows: Linux places a page on the node of the CPU that first writes to it.
    """
    allowed = os.sched_getaffinity(0)
    ordered: list[int] = []
    for node in sorted(home.glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        listed = parsed_list((node / "cpulist").read_text(encoding="ascii"))
        ordered.extend(cpu for cpu in listed if cpu in allowed)
    return ordered or sorted(allowed)


def parsed_list(text: str) -> list[int]:
    """The kernel's lists of CPUs, as "0-3,8,10-11"."""
    found: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found.extend(range(int(first), int(last or first) + 1))
    return found


def devices(engine: int, per_engine: int) -> str:
    """Numbers of one engine's accelerators on its node, as their variables want them."""
    first = engine * per_engine
    return ",".join(str(number) for number in range(first, first + per_engine))
