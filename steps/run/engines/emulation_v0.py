"""The numerics of emulation.py in V0 of vLLM 0.9: linear layers in FP8 in vLLM's own form of a
checkpoint and in Quark's, and in MXFP4 in Quark's.

Left alone: experts, of which 0.9 computes none on a CPU without Intel's extension for PyTorch; and
the KV cache in FP8, which it refuses without that extension too.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, functional
from vllm import _custom_ops
from vllm.logger import init_logger
from vllm.model_executor.layers import linear
from vllm.model_executor.layers.quantization import fp8
from vllm.model_executor.layers.quantization.quark import quark
from vllm.model_executor.layers.quantization.quark.schemes import QuarkW4A4MXFP4, QuarkW8A8Fp8
from vllm.platforms import current_platform

from steps.base.errors import UserError
from steps.prepare.checkpoint.formats import fp8_codes, mxfp4_round_trip, mxfp4_values
from steps.run.engines import emulated

logger = init_logger("vllm.reprise.emulation")

NO_STATIC_SCALES = (
    "the emulation has no FP8 without static scales per tensor; choose another precision, or "
    "hardware with the format"
)
EMULATED = 0
"""The capability of a device that V0 asks for; a CPU tells none, and is asked for none."""


class EmulatedFp8LinearMethod(fp8.Fp8LinearMethod):
    """Static scales per tensor."""

    def __init__(self, quant_config: fp8.Fp8Config) -> None:
        super().__init__(quant_config)
        self.use_marlin = False  # which is for CUDA; 0.9 takes it wherever FP8 is missing
        if self.block_quant or quant_config.activation_scheme != "static":
            raise UserError(NO_STATIC_SCALES)

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        super().process_weights_after_loading(layer)
        layer.weight = Parameter(layer.weight.float(), requires_grad=False)

    def apply(self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return _product(layer, x, bias)


class EmulatedQuarkFp8(QuarkW8A8Fp8):
    """The same in Quark's form of a checkpoint."""

    def __init__(self, qscheme: str, is_static_input_scheme: bool | None) -> None:
        super().__init__(qscheme, is_static_input_scheme)
        if qscheme != "per_tensor" or not is_static_input_scheme:
            raise UserError(NO_STATIC_SCALES)

    @classmethod
    def get_min_capability(cls) -> int:
        return EMULATED

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        super().process_weights_after_loading(layer)
        layer.weight = Parameter(layer.weight.float(), requires_grad=False)

    def apply_weights(
        self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        return _product(layer, x, bias)


def _product(layer: torch.nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
    read = fp8_codes(x, layer.input_scale).float()
    product = (read @ layer.weight) * (layer.input_scale * layer.weight_scale)
    if bias is not None:
        product += bias.float()
    return product.to(x.dtype)


class EmulatedMxfp4(QuarkW4A4MXFP4):
    """vLLM's own emulation needs AMD Quark and a GPU."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        values = mxfp4_values(layer.weight.data, layer.weight_scale.data)
        layer.weight = Parameter(values.bfloat16(), requires_grad=False)

    def apply_weights(
        self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        return functional.linear(mxfp4_round_trip(x), layer.weight.to(x.dtype), bias)


def register() -> None:
    """Let vLLM compute with these in this process. UserError on anything but a CPU."""
    emulated.require_cpu(current_platform)
    _custom_ops.scaled_fp8_quant = emulated.scaled_fp8_quant
    fp8.Fp8LinearMethod = EmulatedFp8LinearMethod
    # How weights are loaded goes by the name of the class.
    linear.WEIGHT_LOADER_V2_SUPPORTED.append(EmulatedFp8LinearMethod.__name__)
    quark.QuarkW4A4MXFP4 = EmulatedMxfp4
    quark.QuarkW8A8Fp8 = EmulatedQuarkFp8
    plain = quark.QuarkConfig._check_scheme_supported

    def supported(self: Any, min_capability: int, error: bool = True) -> bool:
        return min_capability == EMULATED or plain(self, min_capability, error)

    quark.QuarkConfig._check_scheme_supported = supported
    logger.warning("FP8 and MXFP4 are emulated on the CPU: no speed here is one of the formats")
