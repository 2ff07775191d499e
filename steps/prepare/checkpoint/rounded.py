"""Weights rounded to MXFP4 but stored in their own dtype: the format's loss, on any engine.

Nothing is smaller, and activations keep their precision.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steps.prepare.checkpoint import mxfp4
from steps.prepare.checkpoint.layout import Tensor
from steps.prepare.checkpoint.quantize import Mxfp4
from steps.prepare.checkpoint.stream import Target


@dataclass(frozen=True)
class Rounded:
    """A transform for `stream.rewrite`: rounds what `format` would quantize."""

    format: Mxfp4

    @property
    def recipe(self) -> object:
        return {"rounded": self.format.recipe}

    def targets(self, tensor: Tensor) -> tuple[Target, ...]:
        return (Target(tensor.name, tensor.dtype, tensor.shape),)

    def convert(self, tensor: Tensor, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        if tensor.name not in self.format.chosen:
            yield from chunks
            return
        mode = self.format.settings.scale_calculation_mode
        for chunk in chunks:
            packed, scales = mxfp4.quantize(chunk, tensor.dtype, mode)
            yield mxfp4.dequantize(packed, scales, tensor.dtype)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return dict(config)
