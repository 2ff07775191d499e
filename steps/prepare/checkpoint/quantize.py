"""Weights in MXFP4, shard by shard, named and laid out as AMD Quark 0.13 exports them.

Without calibration data, so the KV cache stays as it is: its FP8 scales must be measured in memory.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from steps.base.errors import UserError
from steps.base.strict import Strict
from steps.prepare.checkpoint import mxfp4
from steps.prepare.checkpoint.layout import CONFIG, Checkpoint, Tensor
from steps.prepare.checkpoint.stream import Target

_LAYER = re.compile(r"\.layers\.\d+\.")
_HEAD = "lm_head.weight"


class Mxfp4Config(Strict):
    """MXFP4 weights; activations quantized by the engine at run time or not at all.

    `exclude` are glob patterns of modules that aren't quantized ("lm_head", "*.gate").
    """

    activations: Literal["mxfp4", "none"]
    scale_calculation_mode: mxfp4.ScaleMode
    exclude: tuple[str, ...]


@dataclass(frozen=True)
class Mxfp4:
    """The transform for `steps.prepare.checkpoint.stream.rewrite`."""

    settings: Mxfp4Config
    chosen: frozenset[str]
    """Names of the tensors that are quantized."""
    excluded: tuple[str, ...]
    """Names of the linear layers that aren't quantized."""

    @property
    def recipe(self) -> object:
        return {"mxfp4": self.settings.model_dump(mode="json")}

    def targets(self, tensor: Tensor) -> tuple[Target, ...]:
        """A weight of shape (out, in) becomes uint8 (out, in / 2) and scales (out, in / 32)."""
        if tensor.name not in self.chosen:
            return (Target(tensor.name, tensor.dtype, tensor.shape),)
        rows, columns = tensor.shape
        return (
            Target(tensor.name, "U8", (rows, columns // 2)),
            Target(f"{tensor.name}_scale", "U8", (rows, columns // mxfp4.GROUP)),
        )

    def convert(self, tensor: Tensor, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        if tensor.name not in self.chosen:
            yield from chunks
            return
        scales = []
        for chunk in chunks:
            packed, scale = mxfp4.quantize(
                chunk, tensor.dtype, self.settings.scale_calculation_mode
            )
            scales.append(scale)
            yield memoryview(packed).cast("B")
        yield memoryview(np.concatenate(scales))

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {**config, "quantization_config": _described(self.settings, self.excluded)}


def mxfp4_transform(source: Checkpoint, settings: Mxfp4Config) -> Mxfp4:
    """Choose the linear layers: the matrices of decoder layers, and lm_head, less `exclude`.

    UserError for a checkpoint that is quantized already, a weight that can't be (dtype, width, a
    fused stack of experts), a pattern that matches nothing, or an lm_head that is tied to the
    embeddings.
    """
    if source.quantized:
        raise UserError(f"{source.directory} is quantized already; give the original weights")
    unused = set(settings.exclude)
    chosen, excluded = set(), set()
    for tensor in source.tensors:
        if not (_LAYER.search(tensor.name) or tensor.name == _HEAD) or len(tensor.shape) < 2:
            continue
        module = tensor.name.removesuffix(".weight")
        matched = {pattern for pattern in settings.exclude if fnmatch.fnmatchcase(module, pattern)}
        unused -= matched
        if matched:
            excluded.add(module)
        else:
            _refuse(source, tensor)
            chosen.add(tensor.name)
    if "lm_head" in unused and source.config.get("tie_word_embeddings"):
        # A tied head has no tensor of its own, and stays as it is.
        unused.remove("lm_head")
        excluded.add("lm_head")
    if unused:
        raise UserError(
            f"exclude has {sorted(unused)[0]!r}, which matches no weight of {source.directory}; "
            "correct the pattern"
        )
    if not chosen:
        raise UserError(f"{source.directory} has no linear layer left to quantize")
    return Mxfp4(settings, frozenset(chosen), tuple(sorted(excluded)))


def _refuse(source: Checkpoint, tensor: Tensor) -> None:
    where = f"{tensor.path}: {tensor.name}"
    if not tensor.name.endswith(".weight") or len(tensor.shape) != 2:
        raise UserError(
            f"{where} of shape {list(tensor.shape)} isn't the weight of one linear layer; "
            "exclude it or split fused experts first"
        )
    if tensor.dtype not in ("BF16", "F16", "F32"):
        raise UserError(f"{where} is {tensor.dtype}; MXFP4 is made from BF16, F16 or F32 weights")
    if tensor.shape[1] % mxfp4.GROUP:
        raise UserError(
            f"{where} is {tensor.shape[1]} wide, which groups of {mxfp4.GROUP} don't divide; "
            "exclude it"
        )
    if tensor.name == _HEAD and source.config.get("tie_word_embeddings"):
        raise UserError(
            f"{source.directory / CONFIG} ties lm_head to the embeddings, so it can't be "
            "quantized on its own; exclude lm_head"
        )


def _described(settings: Mxfp4Config, excluded: tuple[str, ...]) -> dict[str, Any]:
    """quantization_config of config.json, by which engines choose kernels, as Quark 0.13 writes it.

    Excluded layers have their full names: vLLM reads no glob patterns here.
    """
    weight = _tensor_spec(settings, dynamic=False)
    inputs = _tensor_spec(settings, dynamic=True) if settings.activations == "mxfp4" else None
    return {
        "quant_method": "quark",
        "quant_mode": "eager_mode",
        "global_quant_config": {
            "weight": weight,
            "input_tensors": inputs,
            "output_tensors": None,
            "bias": None,
            "target_device": None,
        },
        "layer_quant_config": {},
        "layer_type_quant_config": {},
        "kv_cache_quant_config": {},
        "kv_cache_post_rope": False,
        "softmax_quant_spec": None,
        "algo_config": None,
        "exclude": list(excluded),
        "export": {
            "kv_cache_group": [],
            "min_kv_scale": 0.0,
            "pack_method": "reorder",
            "weight_format": "real_quantized",
            "weight_merge_groups": None,
        },
    }


def _tensor_spec(settings: Mxfp4Config, *, dynamic: bool) -> dict[str, Any]:
    return {
        "dtype": "fp4",
        "is_dynamic": dynamic,
        "qscheme": "per_group",
        "ch_axis": -1,
        "group_size": mxfp4.GROUP,
        "block_size": None,
        "symmetric": None,
        "round_method": "half_even",
        "scale_type": "float",
        "zero_point_type": None,
        "scale_format": "e8m0",
        "scale_calculation_mode": settings.scale_calculation_mode,
        "mx_element_dtype": None,
        "observer_cls": "PerBlockMXObserver",
        "is_scale_quant": False,
    }
