"""Adapters added to the weights they were trained beside, shard by shard."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from steps.base.errors import UserError
from steps.base.record import sha256_file
from steps.prepare.checkpoint.finite import FLOATS, decoded, floats
from steps.prepare.checkpoint.layout import CONFIG, Checkpoint, Tensor, read_shard
from steps.prepare.checkpoint.stream import Target

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
"""The prefix of every name in peft's files: its wrapper's, and the wrapped model's."""

Matrix: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Merge:
    """The transform for `steps.prepare.checkpoint.stream.rewrite`.

    `factors` maps a weight W [out, in] to A [rank, in] and B [out, rank]; W becomes
    W + `scale` · B · A, computed in fp32 and rounded once. `digest` is the adapters'.
    """

    factors: Mapping[str, tuple[Matrix, Matrix]]
    scale: float
    digest: str

    @property
    def recipe(self) -> object:
        return {"merge": self.digest, "scale": self.scale}

    def targets(self, tensor: Tensor) -> tuple[Target, ...]:
        return (Target(tensor.name, tensor.dtype, tensor.shape),)

    def convert(self, tensor: Tensor, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        if tensor.name not in self.factors:
            yield from chunks
            return
        down, up = self.factors[tensor.name]
        width, first = tensor.shape[1], 0
        for chunk in chunks:
            values = decoded(chunk, tensor.dtype)
            last = first + len(values)
            rows = up[first // width : -(-last // width)]
            change = (rows @ down).reshape(-1)
            start = first % width
            values += np.float32(self.scale) * change[start : start + len(values)]
            yield memoryview(_encoded(values, tensor.dtype)).cast("B")
            first = last

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return dict(config)


def read(source: Checkpoint, directory: Path) -> Merge:
    """UserError for adapters of weights that `source` doesn't have, or has in another shape."""
    path = directory / WEIGHTS
    tensors = {tensor.name: tensor for tensor in read_shard(path).tensors}
    settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
    held = {tensor.name: tensor for tensor in source.tensors}
    factors: dict[str, tuple[Matrix, Matrix]] = {}
    for name, tensor in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        weight = name.removeprefix(PREFIX).replace(".lora_A.weight", ".weight")
        down, up = _matrix(tensor), _matrix(tensors[name.replace(".lora_A.", ".lora_B.")])
        wanted = (up.shape[0], down.shape[1])
        if weight not in held or held[weight].shape != wanted:
            raise UserError(
                f"{path} has adapters of {weight} {list(wanted)}, which {source.directory} doesn't "
                "hold; they were trained beside another model"
            )
        if held[weight].dtype not in FLOATS:
            raise UserError(
                f"{source.directory / CONFIG}: {weight} is {held[weight].dtype}, and adapters are "
                f"merged into {', '.join(FLOATS)}; start from unquantized weights"
            )
        factors[weight] = down, up
    if not factors:
        raise UserError(f"{path} holds no adapters; delete {directory} and train again")
    return Merge(factors, settings["lora_alpha"] / settings["r"], sha256_file(path))


def _matrix(tensor: Tensor) -> Matrix:
    values = floats(tensor)
    if values is None or not np.isfinite(values).all():
        raise UserError(
            f"{tensor.path}: {tensor.name} has numbers that aren't finite; lower "
            "compression.finetune.learning_rate and train again"
        )
    return values.reshape(tensor.shape)


def _encoded(values: Matrix, dtype: str) -> NDArray[np.generic]:
    """Rounded to nearest, ties to even, as torch does."""
    if dtype != "BF16":
        return values.astype(FLOATS[dtype])
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
