"""The numerics of emulation.py in V0 of vLLM 0.9: linear layers in FP8 in vLLM's own form of a
checkpoint, and in MXFP4 in Quark's, as Quark 0.9 writes them.

Left alone: FP8 in Quark's form; experts, of which 0.9 computes none on a CPU without Intel's
extension for PyTorch; and the KV cache in FP8, which it refuses without that extension too.
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
from vllm.model_executor.layers.quantization.quark.schemes import QuarkW4A4MXFP4
from vllm.platforms import current_platform

from steps.base.errors import UserError
from steps.prepare.checkpoint.formats import fp8_codes, mxfp4_round_trip, mxfp4_values

logger = init_logger("vllm.reprise.emulation")


class EmulatedFp8LinearMethod(fp8.Fp8LinearMethod):  # type: ignore[misc]
    """Static scales per tensor."""

    def __init__(self, quant_config: fp8.Fp8Config) -> None:
        super().__init__(quant_config)
        self.use_marlin = False  # which is for CUDA; 0.9 takes it wherever FP8 is missing
        if self.block_quant or quant_config.activation_scheme != "static":
            raise UserError(
                "the emulation has no FP8 without static scales per tensor; choose another "
                "precision, or hardware with the format"
            )

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        super().process_weights_after_loading(layer)
        layer.weight = Parameter(layer.weight.float(), requires_grad=False)

    def apply(self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        read = fp8_codes(x, layer.input_scale).float()
        product = (read @ layer.weight) * (layer.input_scale * layer.weight_scale)
        if bias is not None:
            product += bias.float()
        return product.to(x.dtype)


class EmulatedMxfp4(QuarkW4A4MXFP4):  # type: ignore[misc]
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
    if not current_platform.is_cpu():
        raise UserError(
            f"emulation of FP8 and MXFP4 is for CPUs, this is {current_platform.device_type}; "
            "remove `emulation` from the hardware's engine settings"
        )
    _custom_ops.scaled_fp8_quant = _scaled_fp8_quant
    fp8.Fp8LinearMethod = EmulatedFp8LinearMethod
    # How weights are loaded goes by the name of the class.
    linear.WEIGHT_LOADER_V2_SUPPORTED.append(EmulatedFp8LinearMethod.__name__)
    quark.QuarkW4A4MXFP4 = EmulatedMxfp4
    logger.warning("FP8 and MXFP4 are emulated on the CPU: no speed here is one of the formats")


def _scaled_fp8_quant(
    input: Tensor, scale: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Replaces vLLM's compiled one, which its CPU build lacks. 0.9 calls it here with one static
    scale only, to convert the parts of a fused layer to a common one.
    """
    if scale is None or scale.numel() != 1 or any(options.values()):
        raise NotImplementedError(f"the emulation has no scaled_fp8_quant with {options}")
    return fp8_codes(input, scale), scale
