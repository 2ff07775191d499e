"""MXFP4, as the OCP Microscaling Formats (MX) specification 1.0 defines it.

Groups of 32 elements share a scale: e8m0, a byte s that stands for 2^(s - 127). An element is
e2m1: a sign and one of 0, 0.5, 1, 1.5, 2, 3, 4, 6 (section 5.3.3). Values are rounded to the
nearest element, ties to the even code, and saturate at 6 (section 6.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

GROUP = 32

ScaleMode = Literal["even", "floor"]
"""How a group's scale follows from its largest magnitude.

"floor": the power of two below it, over 4 (the specification, section 6.3). "even": the magnitude
is first rounded to one bit of mantissa, so that 1.75 to 2 counts as 2 and nothing above 6 is
clipped (AMD Quark's `scale_calculation_mode`, and what AMD's v5.1 submission used).
"""

_LARGEST_EXPONENT = 2  # of e2m1: 6 = 1.5 * 2^2
_BIAS = 127

_ELEMENTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES = np.array([sign * value for sign in (1, -1) for value in _ELEMENTS], np.float32)

# A magnitude becomes code i + 1 from the i-th threshold on; at a tie the even code wins, so the
# threshold itself belongs to the upper code if that is even.
_THRESHOLDS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)


@dataclass(frozen=True)
class _Format:
    """A floating-point format with float32's exponent; `bits` is the integer type of its bits."""

    bits: type[np.signedinteger]
    mantissa: int


_FORMATS: Mapping[str, _Format] = {"BF16": _Format(np.int16, 7), "F32": _Format(np.int32, 23)}


def quantize(
    data: memoryview, dtype: str, mode: ScaleMode
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Packed elements and scales of whole groups of finite values.

    `data` holds n * 32 elements of dtype "BF16", "F16" or "F32". Elements: n * 16 bytes, the first
    of two in the low half of the byte. Scales: n bytes, never 0: a group of zeros gets 1, as AMD
    Quark writes it, and 2^-127 isn't a normal float32.
    """
    if dtype == "F16":
        values = np.frombuffer(data, np.float16).astype(np.float32)
        return quantize(memoryview(values).cast("B"), "F32", mode)
    form = _FORMATS[dtype]
    bits = np.frombuffer(data, form.bits).reshape(-1, GROUP)
    magnitudes = bits & form.bits((1 << (8 + form.mantissa)) - 1)
    scales = _scales(_largest(magnitudes), form, mode)
    # With float32's exponent, dividing by 2^k is subtracting k from the exponent's field: exact
    # while the result is no subnormal number, and those are far below the first threshold ...
    shifted = magnitudes - (scales.astype(form.bits) << form.mantissa)[:, None]
    codes = _codes(shifted, form, 0)
    # ... unless the scale is the least there is, where fields don't tell magnitudes.
    least = scales == 1
    if least.any():
        codes[least] = _codes(magnitudes[least], form, 1)
    codes += (bits < 0).view(np.uint8) * np.uint8(8)
    pairs = codes.view("<u2")
    return (pairs | (pairs >> 4)).astype(np.uint8), scales


def dequantize(packed: NDArray[np.uint8], scales: NDArray[np.uint8], dtype: str) -> memoryview:
    """The result of `quantize` as values of dtype "BF16", "F16" or "F32", in bytes.

    bf16 and fp32 represent every value exactly; fp16 overflows only for values that no fp16 source
    had.
    """
    codes = np.stack([packed.reshape(-1) & 15, packed.reshape(-1) >> 4], -1).reshape(-1, GROUP)
    factors = (scales.reshape(-1, 1).astype(np.uint32) << 23).view(np.float32)
    values = _VALUES[codes] * factors
    if dtype == "F16":
        return memoryview(values.astype(np.float16)).cast("B")
    if dtype == "BF16":
        return memoryview((values.view(np.uint32) >> 16).astype(np.uint16)).cast("B")
    return memoryview(values).cast("B")


def _largest(magnitudes: NDArray[np.signedinteger]) -> NDArray[np.signedinteger]:
    """The maximum of each group. Words of eight bytes are put side by side first: a maximum over
    long rows is several times as fast as one over 32 neighbours.
    """
    words = np.ascontiguousarray(magnitudes.view(np.int64).T)
    lanes = words.view(magnitudes.dtype).reshape(len(words), len(magnitudes), -1).max(0)
    largest: NDArray[np.signedinteger] = lanes[:, 0]
    for lane in range(1, lanes.shape[1]):
        largest = np.maximum(largest, lanes[:, lane])
    return largest


def _scales(
    largest: NDArray[np.signedinteger], form: _Format, mode: ScaleMode
) -> NDArray[np.uint8]:
    """The exponent's field is the scale's byte: both have a bias of 127."""
    wide = largest.astype(np.int32)
    if mode == "even":
        wide += 1 << (form.mantissa - 2)
    return np.maximum((wide >> form.mantissa) - _LARGEST_EXPONENT, 1).astype(np.uint8)


def _codes(magnitudes: NDArray[np.signedinteger], form: _Format, scale: int) -> NDArray[np.uint8]:
    """e2m1 codes without sign of magnitudes whose scale's exponent field is `scale`."""
    codes = np.zeros(magnitudes.shape, np.uint8)
    for code, threshold in enumerate(_THRESHOLDS, start=1):
        if scale:
            exact = np.float32(threshold * 2.0 ** (scale - _BIAS)).view(np.int32)
        else:
            exact = np.float32(threshold).view(np.int32) - (_BIAS << 23)
        limit = form.bits(int(exact) >> (23 - form.mantissa))
        reached = magnitudes >= limit if code % 2 == 0 else magnitudes > limit
        codes += reached.view(np.uint8)
    return codes
