"""Accelerators as `conf/hardware` declares them."""

from steps.base.strict import Name, Positive, PositiveNumber, Strict


class Accelerator(Strict):
    """The accelerators of a node.

    `model`: as the vendor's tool prints it. `memory_gb`: of one, in GB, from its data sheet.
    `architecture`: as compilers name it (gfx942, sm_90). `count_per_node`: how many a node has.
    """

    model: str
    memory_gb: PositiveNumber
    architecture: Name
    count_per_node: Positive
