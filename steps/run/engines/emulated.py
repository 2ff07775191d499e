"""What the emulations of FP8 and MXFP4 share (emulation.py, emulation_v0.py)."""

from typing import Any

from torch import Tensor

from steps.base.errors import UserError
from steps.prepare.checkpoint.formats import fp8_codes


def require_cpu(platform: Any) -> None:
    """Raises UserError on anything but a CPU; `platform`: vLLM's."""
    if not platform.is_cpu():
        raise UserError(
            f"emulation of FP8 and MXFP4 is for CPUs, this is {platform.device_type}; remove "
            "`emulation` from the hardware's engine settings"
        )


def scaled_fp8_quant(
    input: Tensor, scale: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Replaces vLLM's compiled one, which its CPU builds lack (0.9) or declare and lack (0.32).

    vLLM calls it there with one static scale only, to convert the parts of a fused layer to a
    common one.
    """
    if scale is None or scale.numel() != 1 or any(options.values()):
        raise NotImplementedError(f"the emulation has no scaled_fp8_quant with {options}")
    return fp8_codes(input, scale), scale
