"""vLLM kernels for FP8 and MXFP4 checkpoints on a CPU, which has neither.

They compute what the formats say and nothing faster: operands are rounded as the hardware would
read them, products are summed in fp32 (FP8) or by the CPU's bf16 product (MXFP4), and the result
is rounded once. vLLM's own emulation of MXFP4 needs AMD Quark and a GPU. Never used on a GPU: the
kernels are registered for the CPU's platform only, and `register` refuses any other.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, functional
from vllm import _custom_ops
from vllm.logger import init_logger
from vllm.model_executor.kernels.linear import (
    FP8ScaledMMLinearKernel,
    FP8ScaledMMLinearLayerConfig,
    MxFp4LinearKernel,
    MxFp4LinearLayerConfig,
    register_linear_kernel,
)
from vllm.model_executor.layers.quantization.utils.quant_utils import kMxfp4Dynamic
from vllm.platforms import PlatformEnum, current_platform

from steps.errors import UserError
from steps.sut.formats import fp8_codes, mxfp4_round_trip, mxfp4_values

OTHERS = (
    "CPUFP8W8A8ScaledMMLinearKernel",
    "CPUFp8PerTensorScaledMMLinearKernel",
    "PerTensorTorchFP8ScaledMMLinearKernel",
)
"""vLLM 0.32's own candidates for FP8 on a CPU, which come first: they need AMX, compute in other
numerics or take sixty times as long."""

logger = init_logger("vllm.reprise.emulation")


class EmulatedFp8Kernel(FP8ScaledMMLinearKernel):  # type: ignore[misc]
    """Per-tensor scales of weights and activations, as Quark's w_fp8_a_fp8 has them."""

    @classmethod
    def is_supported(cls, compute_capability: int | None = None) -> tuple[bool, str | None]:
        return _on_cpu()

    @classmethod
    def can_implement(cls, config: FP8ScaledMMLinearLayerConfig) -> tuple[bool, str | None]:
        keys = (config.activation_quant_key, config.weight_quant_key)
        if not all(key.scale.group_shape.is_per_tensor() for key in keys):
            return False, "the emulation has per-tensor scales only"
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        # e4m3 is exact in fp32; a product of a CPU reads nothing smaller than bf16 anyway.
        layer.weight = Parameter(layer.weight.float(), requires_grad=False)

    def apply_scaled_mm(
        self,
        *,
        A: Tensor,
        B: Tensor,
        out_dtype: torch.dtype,
        As: Tensor,
        Bs: Tensor,
        bias: Tensor | None,
        output_shape: Sequence[int],
    ) -> Tensor:
        product = (A.float() @ B) * (As * Bs)
        if bias is not None:
            product += bias.float()
        return product.to(out_dtype).view(*output_shape)


class EmulatedMxfp4Kernel(MxFp4LinearKernel):  # type: ignore[misc]
    """MXFP4 weights, and activations in MXFP4 or as they are."""

    @classmethod
    def is_supported(cls, compute_capability: int | None = None) -> tuple[bool, str | None]:
        return _on_cpu()

    @classmethod
    def can_implement(cls, config: MxFp4LinearLayerConfig) -> tuple[bool, str | None]:
        if config.activation_quant_key not in (None, kMxfp4Dynamic):
            return False, "the emulation has activations in MXFP4 or as they are"
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        # Three significant bits and a power of two: exact in bf16.
        values = mxfp4_values(layer.weight.data, layer.weight_scale.data)
        layer.weight = Parameter(values.bfloat16(), requires_grad=False)

    def apply_weights(
        self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        read = x if self.config.activation_quant_key is None else mxfp4_round_trip(x)
        return functional.linear(read, layer.weight.to(x.dtype), bias)


def register() -> None:
    """Let vLLM choose these kernels in this process. UserError on anything but a CPU."""
    if not current_platform.is_cpu():
        raise UserError(
            f"emulation of FP8 and MXFP4 is for CPUs, this is {current_platform.device_type}; "
            "remove `emulation` from the hardware's engine settings"
        )
    os.environ["VLLM_DISABLED_KERNELS"] = ",".join(OTHERS)
    register_linear_kernel(EmulatedFp8Kernel, PlatformEnum.CPU, "fp8")
    register_linear_kernel(EmulatedMxfp4Kernel, PlatformEnum.CPU, "mxfp4")
    _custom_ops.scaled_fp8_quant = _scaled_fp8_quant
    logger.warning("FP8 and MXFP4 are emulated on the CPU: no speed here is one of the formats")


def _on_cpu() -> tuple[bool, str | None]:
    return (True, None) if current_platform.is_cpu() else (False, "emulates on a CPU only")


def _scaled_fp8_quant(
    input: Tensor, scale: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Stands in for vLLM's compiled one, which its CPU build declares but doesn't have.

    vLLM 0.32 calls it here with one static scale only, to bring the parts of a fused layer to a
    common one.
    """
    if scale is None or scale.numel() != 1 or any(options.values()):
        raise NotImplementedError(f"the emulation has no scaled_fp8_quant with {options}")
    return fp8_codes(input, scale), scale
