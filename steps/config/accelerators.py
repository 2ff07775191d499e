"""Accelerators as `conf/hardware` declares them, and the devices that they are split into."""

from collections.abc import Mapping
from typing import Any, Literal

from steps.base.strict import Name, Positive, PositiveNumber, Strict

PARTITIONS: Mapping[str, int] = {"SPX": 1, "DPX": 2, "TPX": 3, "QPX": 4, "CPX": 8}
"""Devices of a card in each compute partition mode: an MI300X has eight compute dies (an MI300A
six, three in TPX; the ROCm documentation's "GPU partitioning")."""


Vendor = Literal["AMD", "NVIDIA"]


class Accelerator(Strict):
    """The accelerators of a node.

    `model`: as the vendor's tool prints it. `memory_gb`: of one, in GB, from its data sheet.
    `architecture`: as compilers name it (gfx942, sm_90). `count_per_node`: how many a node has.
    """

    model: str
    memory_gb: PositiveNumber
    architecture: Name
    count_per_node: Positive

    @property
    def vendor(self) -> Vendor:
        """By the architecture: gfx942 is AMD's, sm_90 NVIDIA's."""
        return "AMD" if self.architecture.startswith("gfx") else "NVIDIA"


class Modes(Strict):
    """Partition modes that a run has its accelerators in.

    `compute`: how many devices an accelerator is split into: 1 in SPX, 2 in DPX, 3 in TPX, 4 in
    QPX, 8 in CPX. `memory`: how many parts its memory is split into: 4 in NPS4.
    """

    compute: Literal["SPX", "DPX", "TPX", "QPX", "CPX"] = "SPX"
    memory: Literal["NPS1", "NPS2", "NPS4", "NPS8"] = "NPS1"

    @property
    def devices(self) -> int:
        """How many devices device plugins and schedulers count for one accelerator."""
        return PARTITIONS[self.compute]


def modes_in(engine: Mapping[str, Any] | None) -> Modes | None:
    """The partition modes that an engine's configuration has its accelerators in; None: it names
    none.
    """
    settings = engine or {}
    kinds = settings.get("placement", {}).get("kinds", ())
    if kinds and kinds[0]["modes"]:
        return Modes.model_validate(kinds[0]["modes"])
    named = {"compute": "compute_partition", "memory": "memory_partition"}
    found = {mode: settings[key] for mode, key in named.items() if key in settings}
    return Modes.model_validate(found) if found else None
