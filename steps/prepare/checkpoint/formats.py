"""FP8 (e4m3) and MXFP4 as torch tensors: the numerics behind the emulating kernels.

MXFP4 is that of steps/prepare/checkpoint/mxfp4.py, whose docstrings name the specification; scales
are chosen as AMD Quark's "even" mode does.
"""

import torch
from torch import Tensor

from steps.prepare.checkpoint.mxfp4 import GROUP

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_LARGEST = 6.0
_MANTISSA = 23  # bits of float32


def fp8_codes(values: Tensor, scale: Tensor) -> Tensor:
    """float8_e4m3fn of values / scale, saturating, ties to even."""
    limit = torch.finfo(torch.float8_e4m3fn).max
    return (values.float() / scale).clamp(-limit, limit).to(torch.float8_e4m3fn)


def mxfp4_values(packed: Tensor, scales: Tensor) -> Tensor:
    """float32 (rows, columns) of uint8 elements (rows, columns / 2), the first of each pair in the
    low half of its byte, and e8m0 scales as uint8 (rows, columns / 32), none of them 0 or 255.
    """
    codes = torch.stack([packed & 15, packed >> 4], -1).flatten(-2).long()
    table = torch.tensor([*_MAGNITUDES, *(-value for value in _MAGNITUDES)])
    return table[codes] * _powers(scales.int()).repeat_interleave(GROUP, -1)


def mxfp4_round_trip(values: Tensor) -> Tensor:
    """Values rounded to MXFP4 in groups of 32 along the last dimension, in their own dtype.

    bf16 and fp32 represent every result exactly, fp16 those with scales of at least 2^-13.
    """
    groups = values.float().unflatten(-1, (-1, GROUP))
    largest = groups.abs().amax(-1, keepdim=True)
    # Rounded to one bit of mantissa; the field of the exponent is the byte of the scale.
    fields = (largest.view(torch.int32) + (1 << (_MANTISSA - 2))) >> _MANTISSA
    scale = _powers((fields - 2).clamp(min=1))
    magnitudes = (groups.abs() / scale).clamp(max=_LARGEST)
    step = torch.ones_like(magnitudes) * 0.5
    step[magnitudes >= 2] = 1.0
    step[magnitudes >= 4] = 2.0
    rounded = (magnitudes / step).round() * step * scale  # torch rounds ties to even
    return torch.copysign(rounded, groups).flatten(-2).to(values.dtype)


def _powers(fields: Tensor) -> Tensor:
    """2^(field - 127) for fields 1 to 254, as float32, whose exponent has the same bias."""
    return (fields << _MANTISSA).view(torch.float32)
