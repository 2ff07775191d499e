"""Accelerators as `conf/hardware` declares them."""

from steps.base.strict import Name, Positive, PositiveNumber, Strict


class Accelerator(Strict):
    """One accelerator; memory in GB as its data sheet says it."""

    model: str
    memory_gb: PositiveNumber
    architecture: Name
    count_per_node: Positive
