"""Whether a node's accelerators are those that a system names: the one answer for doctor, for what
may start and for every run.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from steps.config.accelerators import PARTITIONS, Accelerator, Modes
from steps.machine.probes.values import Accelerator as Found

MEMORY_TOLERANCE = 0.03
"""Firmware keeps a part: an MI300X of 192 GB shows 191.98 GiB, an H100 of 80 GB 79.65 GiB."""

Aspect = Literal["accelerators", "compute partition", "memory partition", "driver"]


class Difference(NamedTuple):
    """One way in which the found accelerators aren't the wanted ones."""

    aspect: Aspect
    says: str


def unfit(wanted: Accelerator, modes: Modes | None, found: Sequence[Found]) -> str:
    """The first difference, in words; "" if these are the wanted accelerators."""
    return next((one.says for one in differences(wanted, modes, found)), "")


def differences(
    wanted: Accelerator, modes: Modes | None, found: Sequence[Found]
) -> Iterator[Difference]:
    """Compares model, architecture, partition, count, memory and driver, as the tool says them.

    `modes`: None for accelerators that have no partitions. What no tool says is a difference where
    a result would be taken for another machine's without it: model, count and driver.
    """
    if not found:
        yield Difference("accelerators", "its tools list no accelerators")
        return
    there = f"there are {listing(found)}"
    if any(one.model is None for one in found):
        yield Difference("accelerators", f"{there}, and no tool names the model of all")
    elif not all(_is_model(one.model, wanted.model) for one in found):
        yield Difference("accelerators", there)
        return
    others = {one.architecture for one in found} - {None, wanted.architecture}
    if others:
        shown = " and ".join(sorted(map(str, others)))
        yield Difference("accelerators", f"there are some of {shown}, not {wanted.architecture}")
    yield from _partitions(modes, found)
    if not _enough(wanted, modes, found):
        yield Difference("accelerators", there)
    yield from _memory(wanted, modes, found)
    yield from _driver(found)


def listing(found: Sequence[Found]) -> str:
    """ "4 × AMD Instinct MI300X and 4 × AMD Instinct MI325X"."""
    kinds = Counter(
        one.model or f"{one.architecture or 'unnamed'} of {one.vendor}" for one in found
    )
    return " and ".join(f"{count} × {kind}" for kind, count in kinds.items())


def _is_model(found: str | None, wanted: str) -> bool:
    """Tools add the form and the memory: "NVIDIA H100 80GB HBM3"."""
    return found is not None and f"{found} ".startswith(f"{wanted} ")


def _partitions(modes: Modes | None, found: Sequence[Found]) -> Iterator[Difference]:
    if modes is None:
        return
    seen: tuple[tuple[Aspect, str, set[str | None]], ...] = (
        ("compute partition", modes.compute, {one.compute_partition for one in found}),
        ("memory partition", modes.memory, {one.memory_partition for one in found}),
    )
    for aspect, wanted, modes_found in seen:
        others = modes_found - {None, wanted}
        if others:
            shown = " and ".join(sorted(map(str, others)))
            yield Difference(aspect, f"there are some in {shown}, not {wanted}")


def _enough(wanted: Accelerator, modes: Modes | None, found: Sequence[Found]) -> bool:
    """Counted whole, in whatever mode they are. More than wanted are left alone, unless they may be
    partitions of fewer.
    """
    said = next((one.compute_partition for one in found if one.compute_partition), None)
    parts = PARTITIONS.get(said or "", modes.devices if modes else 1)
    count = wanted.count_per_node * parts
    return len(found) == count or (len(found) > count and (modes is None or said is not None))


def _memory(
    wanted: Accelerator, modes: Modes | None, found: Sequence[Found]
) -> Iterator[Difference]:
    """Only whole accelerators: a partition shows its share in one release, all in another."""
    whole = [one for one in found if one.compute_partition in (None, "SPX")]
    if modes is not None and modes.devices > 1:
        whole = []
    sizes = {one.memory_mib / 1024 for one in whole if one.memory_mib is not None}
    for gib in sorted(sizes):
        if abs(gib / wanted.memory_gb - 1) > MEMORY_TOLERANCE:
            says = f"there are some with {gib:.0f} GB, not {wanted.memory_gb:g}"
            yield Difference("accelerators", says)
            return


def _driver(found: Sequence[Found]) -> Iterator[Difference]:
    drivers = {one.driver for one in found}
    if None in drivers:
        yield Difference("driver", "no tool reports the driver's version")
    elif len(drivers) > 1:
        shown = " and ".join(sorted(map(str, drivers)))
        yield Difference("driver", f"there are several drivers, {shown}")
