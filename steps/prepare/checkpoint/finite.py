"""Refuses weights that aren't finite, while they are copied."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from steps.base.errors import UserError
from steps.prepare.checkpoint.layout import Tensor

# Type of the same width, mask of the magnitude, least magnitude that is no finite number.
_FORMATS: Mapping[str, tuple[type[np.unsignedinteger], int, int]] = {
    "BF16": (np.uint16, 0x7FFF, 0x7F80),
    "F16": (np.uint16, 0x7FFF, 0x7C00),
    "F32": (np.uint32, 0x7FFF_FFFF, 0x7F80_0000),
    "F64": (np.uint64, 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    "F8_E4M3": (np.uint8, 0x7F, 0x7F),
    "F8_E5M2": (np.uint8, 0x7F, 0x7C),
    "F8_E8M0": (np.uint8, 0xFF, 0xFF),
}

_NAN: Mapping[str, int] = {"F8_E4M3FNUZ": 0x80, "F8_E5M2FNUZ": 0x80}
"""Formats without infinities and with one NaN, in the place of a negative 0."""


def refuse_not_finite(tensor: Tensor, chunk: memoryview) -> None:
    """UserError naming the tensor if a chunk of it holds a NaN or an infinity."""
    if not _all_finite(tensor.dtype, chunk):
        raise UserError(
            f"{tensor.path}: {tensor.name} holds weights that are NaN or infinite; "
            "the checkpoint is damaged, fetch or train it again"
        )


def _all_finite(dtype: str, chunk: memoryview) -> bool:
    if dtype in _NAN:
        return not np.any(np.frombuffer(chunk, np.uint8) == _NAN[dtype])
    if dtype not in _FORMATS:
        return True
    kind, mask, limit = _FORMATS[dtype]
    bits: NDArray[np.unsignedinteger] = np.frombuffer(chunk, kind)
    return not bits.size or int((bits & kind(mask)).max()) < limit


FLOATS: Mapping[str, type[np.generic]] = {
    "BF16": np.uint16,
    "F16": np.float16,
    "F32": np.float32,
}
"""The numpy types for elements of unquantized weights; numpy has no bfloat16."""


def decoded(data: bytes | memoryview, dtype: str) -> NDArray[np.float32]:
    """Elements of a dtype among FLOATS."""
    values = np.frombuffer(data, FLOATS[dtype])
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def encoded(values: NDArray[np.float32], dtype: str) -> memoryview:
    """The inverse of `decoded`, rounded to nearest, ties to even; finite values only."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return memoryview(rounded.astype(np.uint16)).cast("B")
    return memoryview(np.ascontiguousarray(values).astype(FLOATS[dtype])).cast("B")


def floats(tensor: Tensor) -> NDArray[np.float32] | None:
    """The values of a small tensor, read from its file; None if its type isn't among FLOATS."""
    if tensor.dtype not in FLOATS:
        return None
    with tensor.path.open("rb") as stream:
        stream.seek(tensor.offset)
        return decoded(stream.read(tensor.size), tensor.dtype)
