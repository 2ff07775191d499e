"""How found accelerators differ from those that `conf/hardware` declares."""

from collections.abc import Sequence

from steps.config.accelerators import Accelerator
from steps.machine.probes.values import Accelerator as Found

MEMORY_TOLERANCE = 0.03
"""Firmware keeps a part: an MI300X of 192 GB shows 191.98 GiB, an H100 of 80 GB 79.65 GiB."""


def differs(wanted: Accelerator, found: Sequence[Found]) -> str:
    """How the first device that isn't the wanted one differs from it; "" if all are."""
    # A partition shows its share, so memory tells devices apart only where they are whole.
    whole = len(found) <= wanted.count_per_node
    return next(filter(None, (_difference(wanted, one, whole) for one in found)), "")


def _difference(wanted: Accelerator, found: Found, whole: bool) -> str:
    if found.model is not None and not found.model.startswith(wanted.model):
        return f"there are {found.model}"
    if found.architecture is not None and found.architecture != wanted.architecture:
        return f"there are some of {found.architecture}, not {wanted.architecture}"
    whole = found.compute_partition == "SPX" or (found.compute_partition is None and whole)
    if found.memory_mib is not None and whole:
        gib = found.memory_mib / 1024
        if abs(gib / wanted.memory_gb - 1) > MEMORY_TOLERANCE:
            return f"there are some with {gib:.0f} GB, not {wanted.memory_gb:g}"
    return ""
