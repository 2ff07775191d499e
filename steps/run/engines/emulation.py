"""vLLM kernels for FP8 and MXFP4 checkpoints on a CPU, which has neither. V0's: emulation_v0.py.

They compute the formats' numerics, no faster: operands are rounded as the hardware would read them,
products are summed in fp32 (FP8) or by the CPU's bf16 product (MXFP4), and the result is rounded
once. Linear layers and mixtures of experts. vLLM's own emulation of MXFP4 needs AMD Quark and a
GPU. Never used on a GPU: the kernels are registered for the CPU's platform only, and `register`
refuses any other.
"""

import os
from abc import ABC, abstractmethod
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
from vllm.model_executor.layers.fused_moe import FusedMoEConfig
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.oracle.fp8 import Fp8MoeBackend
from vllm.model_executor.layers.fused_moe.oracle.mxfp4 import Mxfp4MoeBackend
from vllm.model_executor.layers.quantization import fp8
from vllm.model_executor.layers.quantization.quark import quark_moe
from vllm.model_executor.layers.quantization.utils.quant_utils import (
    QuantKey,
    kFp8StaticTensorSym,
    kMxfp4Dynamic,
)
from vllm.platforms import PlatformEnum, current_platform

from steps.base.errors import UserError
from steps.prepare.checkpoint.formats import fp8_codes, mxfp4_round_trip, mxfp4_values
from steps.run.engines import emulated

OTHERS = (
    "CPUFP8W8A8ScaledMMLinearKernel",
    "CPUFp8PerTensorScaledMMLinearKernel",
    "PerTensorTorchFP8ScaledMMLinearKernel",
)
"""vLLM 0.32's own candidates for FP8 on a CPU, which would come first: they need AMX, have other
numerics or take sixty times as long.
"""

logger = init_logger("vllm.reprise.emulation")


class EmulatedFp8Kernel(FP8ScaledMMLinearKernel):
    """Per-tensor scales of weights and activations, as in Quark's w_fp8_a_fp8."""

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


class EmulatedMxfp4Kernel(MxFp4LinearKernel):
    """MXFP4 weights, and activations in MXFP4 or unquantized."""

    @classmethod
    def is_supported(cls, compute_capability: int | None = None) -> tuple[bool, str | None]:
        return _on_cpu()

    @classmethod
    def can_implement(cls, config: MxFp4LinearLayerConfig) -> tuple[bool, str | None]:
        if config.activation_quant_key not in (None, kMxfp4Dynamic):
            return False, "the emulation has activations in MXFP4 or unquantized"
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


class _EmulatedExperts(ABC):
    """The experts of Quark's MoE methods one after the other, each on the tokens routed to it."""

    is_monolithic = False

    def get_fused_moe_quant_config(self, layer: torch.nn.Module) -> None:
        """It would describe the scales to vLLM's own kernels, which aren't used."""
        return None

    def apply(
        self,
        layer: torch.nn.Module,
        x: Tensor,
        topk_weights: Tensor,
        topk_ids: Tensor,
        shared_experts: Any,
        shared_experts_input: Tensor | None,
    ) -> Tensor:
        if shared_experts is not None:
            raise _no_emulation("shared experts")
        total = torch.zeros(x.shape, dtype=torch.float32)
        for expert in topk_ids.unique().tolist():
            tokens, places = (topk_ids == expert).nonzero(as_tuple=True)
            gate, up = self.product(layer, "w13", expert, x[tokens]).chunk(2, -1)
            answer = self.product(layer, "w2", expert, functional.silu(gate) * up)
            total.index_add_(0, tokens, answer.float() * topk_weights[tokens, places, None])
        return total.to(x.dtype)

    @abstractmethod
    def product(self, layer: torch.nn.Module, name: str, expert: int, x: Tensor) -> Tensor:
        """x times an expert's weight `name`, in the format's numerics and x's dtype."""


class _Fp8Experts(_EmulatedExperts):
    """Per-tensor scales; activations by the largest static scale of a layer's experts, and w1 and
    w3 by the larger of theirs, as vLLM does for its GPU kernels."""

    def product(self, layer: torch.nn.Module, name: str, expert: int, x: Tensor) -> Tensor:
        scale = getattr(layer, f"{name}_input_scale")
        product = fp8_codes(x, scale).float() @ getattr(layer, f"{name}_weight")[expert].T
        return (product * (scale * getattr(layer, f"{name}_weight_scale")[expert])).to(x.dtype)


class EmulatedFp8Experts(_Fp8Experts, quark_moe.QuarkW8A8Fp8MoEMethod):
    """In Quark's form of a checkpoint."""

    def __init__(
        self, moe: FusedMoEConfig, weight_quant_key: QuantKey, activation_quant_key: QuantKey
    ) -> None:
        super().__init__(moe, weight_quant_key, activation_quant_key)
        if {weight_quant_key, activation_quant_key} != {kFp8StaticTensorSym}:
            raise _no_emulation("experts in FP8 without static scales per tensor")
        _refuse_other_experts(moe)

    def _setup_kernel(self, layer: torch.nn.Module) -> None:
        for name in ("w13_weight", "w2_weight"):
            setattr(layer, name, Parameter(getattr(layer, name).float(), requires_grad=False))


class EmulatedOwnFp8Experts(_Fp8Experts, fp8.Fp8MoEMethod):
    """In vLLM's own form of a checkpoint, which Quark 0.9 writes by `custom_mode`."""

    def __init__(self, quant_config: fp8.Fp8Config, layer: torch.nn.Module) -> None:
        super().__init__(quant_config, layer)
        if self.block_quant or quant_config.activation_scheme != "static":
            raise _no_emulation("experts in FP8 without static scales per tensor")
        _refuse_other_experts(self.moe)

    def _setup_kernel(self, layer: torch.nn.Module, *converted: Tensor) -> None:
        """`converted`: w13 and w2, the scales of both, and of their inputs, which the layer has."""
        names = ("w13_weight", "w2_weight", "w13_weight_scale", "w2_weight_scale")
        for name, values in zip(names, converted, strict=False):
            setattr(layer, name, Parameter(values.data.float(), requires_grad=False))


class EmulatedMxfp4Experts(_EmulatedExperts, quark_moe.QuarkOCP_MX_MoEMethod):
    """MXFP4 weights, and activations in MXFP4 or unquantized."""

    def __init__(
        self, moe: FusedMoEConfig, weight_quant_key: QuantKey, activation_quant_key: QuantKey | None
    ) -> None:
        super().__init__(moe, weight_quant_key, activation_quant_key)
        if self.ocp_mx_scheme not in ("w_mxfp4", "w_mxfp4_a_mxfp4"):
            raise _no_emulation(f"experts in {self.ocp_mx_scheme}")
        _refuse_other_experts(moe)

    def _setup_kernel(self, layer: torch.nn.Module) -> None:
        for name in ("w13_weight", "w2_weight"):
            values = mxfp4_values(getattr(layer, name).data, getattr(layer, f"{name}_scale").data)
            setattr(layer, name, Parameter(values.bfloat16(), requires_grad=False))

    def product(self, layer: torch.nn.Module, name: str, expert: int, x: Tensor) -> Tensor:
        read = x if self.activation_quant_key is None else mxfp4_round_trip(x)
        return functional.linear(read, getattr(layer, f"{name}_weight")[expert].to(x.dtype))


def register() -> None:
    """Let vLLM choose these kernels in this process. UserError on anything but a CPU."""
    emulated.require_cpu(current_platform)
    os.environ["VLLM_DISABLED_KERNELS"] = ",".join(OTHERS)
    register_linear_kernel(EmulatedFp8Kernel, PlatformEnum.CPU, "fp8")
    register_linear_kernel(EmulatedMxfp4Kernel, PlatformEnum.CPU, "mxfp4")
    _custom_ops.scaled_fp8_quant = emulated.scaled_fp8_quant
    # vLLM chooses methods of experts by their class, and has no registry of them.
    quark_moe.QuarkW8A8Fp8MoEMethod = EmulatedFp8Experts
    quark_moe.QuarkOCP_MX_MoEMethod = EmulatedMxfp4Experts
    fp8.Fp8MoEMethod = EmulatedOwnFp8Experts
    quark_moe.select_mxfp4_moe_backend = _no_backend
    fp8.select_fp8_moe_backend = _no_fp8_backend
    logger.warning("FP8 and MXFP4 are emulated on the CPU: no speed here is one of the formats")


def _on_cpu() -> tuple[bool, str | None]:
    return (True, None) if current_platform.is_cpu() else (False, "emulates on a CPU only")


def _refuse_other_experts(moe: FusedMoEConfig) -> None:
    if moe.activation != MoEActivation.SILU or moe.has_bias or moe.moe_parallel_config.use_ep:
        raise _no_emulation("experts without SiLU, with a bias, or on several devices")


def _no_emulation(what: str) -> UserError:
    return UserError(
        f"the emulation has no {what}; choose precision=mxfp4-rounded, or hardware with the format"
    )


def _no_backend(*arguments: Any, **named: Any) -> tuple[Mxfp4MoeBackend, None]:
    """Replaces vLLM's choice among GPU kernels, which refuses a CPU."""
    return Mxfp4MoeBackend.EMULATION, None


def _no_fp8_backend(*arguments: Any, **named: Any) -> tuple[Fp8MoeBackend, None]:
    """The same for FP8. What is returned first is never read: no kernel of vLLM's is made."""
    return Fp8MoeBackend.TRITON, None
