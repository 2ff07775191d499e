"""Inception-v3 as FID uses it: TensorFlow's network of 2015 with its weights in PyTorch. Names of
weights are torchvision's, as in the weights that pytorch-fid distributes. Where the network differs
from torchvision's (text_to_image/tools/fid, v5.1.1): averages exclude the padding, and the last
block takes maxima instead.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from steps.base.errors import UserError

SIDE_PIXELS = 299
EPSILON = 1e-3
"""Epsilon of the batch normalization."""

SQUARES = ("Mixed_5b", "Mixed_5c", "Mixed_5d")
STRIPES = ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")


class Inception:
    """`weights` maps names to arrays; their shapes give each layer's width."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights

    @classmethod
    def read(cls, path: Path) -> "Inception":
        """Raises UserError for a file that isn't the network; runs no code in it."""
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            network = cls({name: tensor.float() for name, tensor in weights.items()})
            network.features(torch.zeros(1, 3, SIDE_PIXELS, SIDE_PIXELS))
        except OSError as error:
            raise UserError(f"{path} can't be read ({error.strerror})") from error
        except Exception as error:  # whatever torch and pickle find in a stranger's file
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"{path} doesn't hold Inception-v3 ({type(error).__name__}: {reason}); use "
                "pytorch-fid's pt_inception-2015-12-05-6726825d.pth"
            ) from error
        return network

    def features(self, pictures: Tensor) -> Tensor:
        """One row per picture. `pictures`: (n, 3, height, width) from 0 to 1."""
        with torch.inference_mode():
            return self._features(pictures)

    def _features(self, pictures: Tensor) -> Tensor:
        size = (SIDE_PIXELS, SIDE_PIXELS)
        x = functional.interpolate(pictures, size=size, mode="bilinear", align_corners=False)
        x = 2 * x - 1
        x = self._conv(x, "Conv2d_1a_3x3", stride=2, padded=False)
        x = self._conv(x, "Conv2d_2a_3x3", padded=False)
        x = _shrunk(self._conv(x, "Conv2d_2b_3x3"))
        x = self._conv(x, "Conv2d_3b_1x1")
        x = _shrunk(self._conv(x, "Conv2d_4a_3x3", padded=False))
        for block in SQUARES:
            x = self._squares(x, block)
        x = self._reduction(x, "Mixed_6a")
        for block in STRIPES:
            x = self._stripes(x, block)
        x = self._last_reduction(x, "Mixed_7a")
        x = self._split(x, "Mixed_7b", _average(x))
        x = self._split(x, "Mixed_7c", functional.max_pool2d(x, 3, stride=1, padding=1))
        return functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1)

    def _conv(self, x: Tensor, name: str, stride: int = 1, *, padded: bool = True) -> Tensor:
        """`padded`: the picture keeps its size at stride 1."""
        kernel = self._weights[f"{name}.conv.weight"]
        padding = (kernel.shape[2] // 2, kernel.shape[3] // 2) if padded else (0, 0)
        x = functional.conv2d(x, kernel, stride=stride, padding=padding)
        mean, variance, weight, bias = (
            self._weights[f"{name}.bn.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.relu(
            functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=EPSILON)
        )

    def _chain(self, x: Tensor, block: str, *names: str) -> Tensor:
        for name in names:
            x = self._conv(x, f"{block}.{name}")
        return x

    def _squares(self, x: Tensor, block: str) -> Tensor:
        return torch.cat(
            (
                self._chain(x, block, "branch1x1"),
                self._chain(x, block, "branch5x5_1", "branch5x5_2"),
                self._chain(x, block, *(f"branch3x3dbl_{n}" for n in (1, 2, 3))),
                self._chain(_average(x), block, "branch_pool"),
            ),
            1,
        )

    def _stripes(self, x: Tensor, block: str) -> Tensor:
        return torch.cat(
            (
                self._chain(x, block, "branch1x1"),
                self._chain(x, block, *(f"branch7x7_{n}" for n in (1, 2, 3))),
                self._chain(x, block, *(f"branch7x7dbl_{n}" for n in (1, 2, 3, 4, 5))),
                self._chain(_average(x), block, "branch_pool"),
            ),
            1,
        )

    def _reduction(self, x: Tensor, block: str) -> Tensor:
        squares = self._chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2")
        return torch.cat(
            (
                self._conv(x, f"{block}.branch3x3", stride=2, padded=False),
                self._conv(squares, f"{block}.branch3x3dbl_3", stride=2, padded=False),
                _shrunk(x),
            ),
            1,
        )

    def _last_reduction(self, x: Tensor, block: str) -> Tensor:
        square = self._chain(x, block, "branch3x3_1")
        stripes = self._chain(x, block, *(f"branch7x7x3_{n}" for n in (1, 2, 3)))
        return torch.cat(
            (
                self._conv(square, f"{block}.branch3x3_2", stride=2, padded=False),
                self._conv(stripes, f"{block}.branch7x7x3_4", stride=2, padded=False),
                _shrunk(x),
            ),
            1,
        )

    def _split(self, x: Tensor, block: str, pooled: Tensor) -> Tensor:
        """Each square convolution ends in a row and a column side by side."""
        short = self._chain(x, block, "branch3x3_1")
        long = self._chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2")
        return torch.cat(
            (
                self._chain(x, block, "branch1x1"),
                *(self._chain(short, block, f"branch3x3_2{half}") for half in "ab"),
                *(self._chain(long, block, f"branch3x3dbl_3{half}") for half in "ab"),
                self._chain(pooled, block, "branch_pool"),
            ),
            1,
        )


def _average(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _shrunk(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 3, stride=2)
