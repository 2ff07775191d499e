"""Inception-v3 at any width, before it has learned anything: names of weights are torchvision's."""

from collections.abc import Callable

from torch import Tensor

Noise = Callable[..., Tensor]
"""Normal numbers: called with a tensor's number among all of them, and its shape."""


def inception(width: int, noise: Noise) -> dict[str, Tensor]:
    """Weights with `width` channels of every convolution, which makes 6 times as many features."""
    found: dict[str, Tensor] = {}

    def conv(name: str, channels: int, height: int = 1, across: int = 1) -> None:
        number, scale = len(found), (2 / (channels * height * across)) ** 0.5
        found[f"{name}.conv.weight"] = scale * noise(number, width, channels, height, across)
        for part, base in (("weight", 1), ("bias", 0.3), ("running_mean", 0), ("running_var", 1)):
            found[f"{name}.bn.{part}"] = base + 0.1 * noise(number + len(part), width)

    def chain(block: str, channels: int, *parts: tuple[str, int, int]) -> None:
        for name, height, across in parts:
            conv(f"{block}.{name}", channels, height, across)
            channels = width

    conv("Conv2d_1a_3x3", 3, 3, 3)
    conv("Conv2d_2a_3x3", width, 3, 3)
    conv("Conv2d_2b_3x3", width, 3, 3)
    conv("Conv2d_3b_1x1", width)
    conv("Conv2d_4a_3x3", width, 3, 3)
    channels = width
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        chain(block, channels, ("branch1x1", 1, 1))
        chain(block, channels, ("branch5x5_1", 1, 1), ("branch5x5_2", 5, 5))
        chain(
            block,
            channels,
            ("branch3x3dbl_1", 1, 1),
            *((f"branch3x3dbl_{n}", 3, 3) for n in (2, 3)),
        )
        chain(block, channels, ("branch_pool", 1, 1))
        channels = 4 * width
    chain("Mixed_6a", channels, ("branch3x3", 3, 3))
    chain(
        "Mixed_6a",
        channels,
        ("branch3x3dbl_1", 1, 1),
        *((f"branch3x3dbl_{n}", 3, 3) for n in (2, 3)),
    )
    channels += 2 * width
    row, column = (1, 7), (7, 1)
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        chain(block, channels, ("branch1x1", 1, 1))
        chain(
            block,
            channels,
            *((f"branch7x7_{n}", *size) for n, size in enumerate(((1, 1), row, column), 1)),
        )
        long = ((1, 1), column, row, column, row)
        chain(block, channels, *((f"branch7x7dbl_{n}", *size) for n, size in enumerate(long, 1)))
        chain(block, channels, ("branch_pool", 1, 1))
        channels = 4 * width
    chain("Mixed_7a", channels, ("branch3x3_1", 1, 1), ("branch3x3_2", 3, 3))
    sizes = ((1, 1), row, column, (3, 3))
    chain("Mixed_7a", channels, *((f"branch7x7x3_{n}", *size) for n, size in enumerate(sizes, 1)))
    channels += 2 * width
    for block in ("Mixed_7b", "Mixed_7c"):
        chain(block, channels, ("branch1x1", 1, 1))
        chain(block, channels, ("branch3x3_1", 1, 1), ("branch3x3_2a", 1, 3))
        conv(f"{block}.branch3x3_2b", width, 3, 1)
        chain(
            block,
            channels,
            ("branch3x3dbl_1", 1, 1),
            ("branch3x3dbl_2", 3, 3),
            ("branch3x3dbl_3a", 1, 3),
        )
        conv(f"{block}.branch3x3dbl_3b", width, 3, 1)
        chain(block, channels, ("branch_pool", 1, 1))
        channels = 6 * width
    return found
