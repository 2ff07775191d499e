"""MXFP4: the arithmetic against the specification's own words, and the layout of the files."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.prepare.checkpoint import mxfp4
from steps.prepare.checkpoint.layout import open_checkpoint
from steps.prepare.checkpoint.quantize import Mxfp4Config, mxfp4_transform
from steps.prepare.checkpoint.stream import rewrite
from tests import checkpoints

ELEMENTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def reference(group: Sequence[float], mode: mxfp4.ScaleMode) -> tuple[list[int], int]:
    """Codes and scale byte of one group, by exact arithmetic and exhaustive search."""
    largest = max(abs(value) for value in group)
    if largest == 0:
        return [8 * (math.copysign(1, value) < 0) for value in group], 1
    fraction, exponent = math.frexp(largest)  # fraction in [0.5, 1)
    exponent -= 1
    if mode == "even" and fraction >= 0.875:
        exponent += 1
    exponent = max(exponent - 2, -126)
    codes = []
    for value in group:
        scaled = abs(value) / 2.0**exponent
        nearest = min(abs(scaled - element) for element in ELEMENTS)
        equal = [c for c, e in enumerate(ELEMENTS) if abs(scaled - e) == nearest]
        code = next(c for c in equal if c % 2 == 0 or len(equal) == 1)
        codes.append(code + 8 * (math.copysign(1, value) < 0))
    return codes, exponent + 127


def quantized(values: np.ndarray, dtype: str, mode: mxfp4.ScaleMode) -> tuple[list[int], int]:
    packed, scales = mxfp4.quantize(memoryview(values.tobytes()), dtype, mode)
    codes = [code for byte in packed.reshape(-1).tolist() for code in (byte & 15, byte >> 4)]
    return codes, int(scales[0])


def bf16(bits: Sequence[int]) -> tuple[np.ndarray, list[float]]:
    stored = np.array(bits, np.uint16)
    return stored, (stored.astype(np.uint32) << 16).view(np.float32).astype(float).tolist()


FINITE_BF16 = st.integers(0, 0xFFFF).filter(lambda bits: bits & 0x7F80 != 0x7F80)
NEAR = st.tuples(st.integers(0, 238), st.lists(st.integers(0, 0x7FF), min_size=32, max_size=32))


@given(st.lists(FINITE_BF16, min_size=32, max_size=32), st.sampled_from(["even", "floor"]))
@example([0] * 32, "even")
@example([0x8000] * 32, "floor")
@example([1] + [0] * 31, "even")  # the least subnormal
@example([0x017F, 0x007F, 0x0040, 0x0020, 0x0021] + [0] * 27, "even")
@example([0x7F7F] * 32, "even")
def test_any_group_of_bf16(bits: list[int], mode: mxfp4.ScaleMode) -> None:
    stored, values = bf16(bits)
    assert quantized(stored, "BF16", mode) == reference(values, mode)


@given(NEAR, st.sampled_from(["even", "floor"]))
def test_groups_of_like_magnitudes(group: tuple[int, list[int]], mode: mxfp4.ScaleMode) -> None:
    exponent, offsets = group
    stored, values = bf16([(exponent << 7) + offset for offset in offsets])
    assert quantized(stored, "BF16", mode) == reference(values, mode)


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=32, max_size=32),
    st.sampled_from(["even", "floor"]),
)
def test_any_group_of_float32(values: list[float], mode: mxfp4.ScaleMode) -> None:
    assert quantized(np.array(values, np.float32), "F32", mode) == reference(values, mode)


@given(
    st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), min_size=32, max_size=32)
)
def test_any_group_of_float16(values: list[float]) -> None:
    assert quantized(np.array(values, np.float16), "F16", "even") == reference(values, "even")


@pytest.mark.parametrize(
    ("largest", "mode", "scale", "code"),
    [
        (1.74, "even", 125, 7),  # 6.96 saturates at 6
        (1.75, "even", 126, 6),  # rounds up: 3.5 lies between 3 and 4, ties to 4
        (1.75, "floor", 125, 7),
        (6.0, "even", 127, 7),
        (4.0, "even", 127, 6),
    ],
)
def test_scale_modes(largest: float, mode: mxfp4.ScaleMode, scale: int, code: int) -> None:
    values = np.zeros(32, np.float32)
    values[0] = largest
    assert quantized(values, "F32", mode) == ([code] + [0] * 31, scale)


# ---- checkpoints -------------------------------------------------------------------------------

SETTINGS = Mxfp4Config(
    activations="mxfp4", scale_calculation_mode="even", exclude=("lm_head", "*.gate")
)


def mixtral() -> checkpoints.Tensors:
    tensors = checkpoints.llama(3)
    generator = np.random.default_rng(1)
    for layer in range(3):
        name = f"model.layers.{layer}.block_sparse_moe.gate.weight"
        tensors[name] = ("BF16", (8, 64), checkpoints.random_bytes(generator, "BF16", (8, 64)))
    return tensors


def test_names_shapes_and_bytes_of_a_quantized_checkpoint(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "source", mixtral(), shards=3)
    checkpoint = open_checkpoint(source)
    rewrite(checkpoint, tmp_path / "out", mxfp4_transform(checkpoint, SETTINGS))
    before, after = checkpoints.read(source), checkpoints.read(tmp_path / "out")
    linear = {name for name in before if name.endswith("_proj.weight")}
    assert set(after) == set(before) | {f"{name}_scale" for name in linear}
    for name, (dtype, shape, data) in before.items():
        if name not in linear:
            assert after[name] == (dtype, shape, data)
            continue
        packed, scales = mxfp4.quantize(memoryview(data), "BF16", "even")
        rows, columns = shape
        assert after[name] == ("U8", (rows, columns // 2), packed.tobytes())
        assert after[f"{name}_scale"] == ("U8", (rows, columns // 32), scales.tobytes())


def test_config_names_the_layers_that_stay(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(checkpoints.write(tmp_path / "source", mixtral()))
    rewrite(checkpoint, tmp_path / "out", mxfp4_transform(checkpoint, SETTINGS))
    made = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    gates = [f"model.layers.{layer}.block_sparse_moe.gate" for layer in range(3)]
    assert made["exclude"] == ["lm_head", *gates]
    assert made["quant_method"] == "quark"
    weight = made["global_quant_config"]["weight"]
    inputs = made["global_quant_config"]["input_tensors"]
    assert (weight["dtype"], weight["group_size"], weight["scale_format"]) == ("fp4", 32, "e8m0")
    assert (weight["is_dynamic"], inputs["is_dynamic"]) == (False, True)
    with pytest.raises(UserError, match="is quantized already"):
        mxfp4_transform(open_checkpoint(tmp_path / "out"), SETTINGS)


def variant(**changes: object) -> Mxfp4Config:
    return Mxfp4Config.model_validate({**SETTINGS.model_dump(), **changes})


def test_weights_that_mxfp4_cannot_hold_are_refused(tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    cases: list[tuple[tuple[str, tuple[int, ...]], str]] = [
        (("BF16", (4, 48)), "is 48 wide, which groups of 32 don't divide; exclude it"),
        (("U8", (4, 64)), "is U8; MXFP4 is made from BF16, F16 or F32"),
        (("BF16", (8, 4, 64)), "isn't the weight of one linear layer; exclude it or split"),
    ]
    for number, ((dtype, shape), words) in enumerate(cases):
        data = bytes(math.prod(shape) * checkpoints.WIDTH[dtype])
        tensors = {**mixtral(), name: (dtype, shape, data)}
        checkpoint = open_checkpoint(checkpoints.write(tmp_path / str(number), tensors))
        with pytest.raises(UserError, match=words) as caught:
            mxfp4_transform(checkpoint, SETTINGS)
        assert name in str(caught.value)
        excluded = variant(exclude=("lm_head", "*.gate", "*.up_proj"))
        assert name not in mxfp4_transform(checkpoint, excluded).chosen


def test_exclusions_have_to_match_something(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(checkpoints.write(tmp_path / "a", checkpoints.llama(2)))
    with pytest.raises(UserError, match=r"exclude has '\*.gate', which matches no weight"):
        mxfp4_transform(checkpoint, SETTINGS)
    with pytest.raises(UserError, match="has no linear layer left to quantize"):
        mxfp4_transform(checkpoint, variant(exclude=("lm_head", "*_proj")))


def test_a_tied_head_stays(tmp_path: Path) -> None:
    tensors = checkpoints.llama(2)
    tied = {"tie_word_embeddings": True}
    both = open_checkpoint(checkpoints.write(tmp_path / "both", tensors, config=tied))
    with pytest.raises(UserError, match="ties lm_head to the embeddings"):
        mxfp4_transform(both, variant(exclude=()))
    del tensors["lm_head.weight"]
    one = open_checkpoint(checkpoints.write(tmp_path / "one", tensors, config=tied))
    assert mxfp4_transform(one, variant(exclude=("lm_head",))).excluded == ("lm_head",)
