"""Minimum accelerators: against numbers worked out by hand, and what must hold for any model."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.commands.cli import call
from steps.plan.capacity import PRECISIONS, load
from tests.conftest import planned

CAPACITY = load()
ACCELERATORS = {name: CAPACITY.hardware[name].accelerator for name in CAPACITY.table}

BY_HAND = {
    # billions: (MI300X, MI325X, MI355X), each FP16, FP8, FP4.
    # Worked out on paper: 130 x 2 x 1.1 = 286 -> 286/192, 286/256, 286/288; 143; 71.5; and so on.
    46.7: ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    70: ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    130: ((2, 1, 1), (2, 1, 1), (1, 1, 1)),
    175: ((3, 2, 1), (2, 1, 1), (2, 1, 1)),
    176: ((3, 2, 1), (2, 1, 1), (2, 1, 1)),
    280: ((4, 2, 1), (3, 2, 1), (3, 2, 1)),
    340: ((4, 2, 1), (3, 2, 1), (3, 2, 1)),
    405: ((5, 3, 2), (4, 2, 1), (4, 2, 1)),
    420: ((5, 3, 2), (4, 2, 1), (4, 2, 1)),
    500: ((6, 3, 2), (5, 3, 2), (4, 2, 1)),
    520: ((6, 3, 2), (5, 3, 2), (4, 2, 1)),
    530: ((7, 4, 2), (5, 3, 2), (5, 3, 2)),
    540: ((7, 4, 2), (5, 3, 2), (5, 3, 2)),
    1000: ((12, 6, 3), (9, 5, 3), (8, 4, 2)),
    1047: ((12, 6, 3), (9, 5, 3), (8, 4, 2)),
    671: ((8, 4, 2), (6, 3, 2), (6, 3, 2)),
}


@pytest.mark.parametrize("billions", BY_HAND)
def test_the_table_equals_arithmetic_by_hand(billions: float) -> None:
    found = tuple(
        tuple(CAPACITY.minimum(billions, p, memory_gb) for p in PRECISIONS)
        for memory_gb in (192, 256, 288)
    )
    assert found == BY_HAND[billions]


FOOTNOTE = {
    **{"OPT": 130, "GPT-3": 175, "BLOOM": 176, "Gopher": 280, "PaLM 1": 340, "LLaMA 405B": 405},
    **{"Generic LM 420B": 420, "Generic LM 500B": 500, "Generic LM 520B": 520},
    **{"Generic LM 1.047T": 1047, "Megatron-LM": 530, "Samba": 1000},
}
"""The models of AMD's footnote MI350-012, billions of parameters."""


def test_the_table_has_every_model_of_the_footnote() -> None:
    ours = {m.name: m.billions for m in CAPACITY.models.values() if "MI350-012" in m.source}
    assert ours == FOOTNOTE
    sizes = [CAPACITY.hardware[name].accelerator.memory_gb for name in CAPACITY.table]
    assert sizes == [192, 256, 288]
    assert set(FOOTNOTE.values()) <= set(BY_HAND)


def test_520_billion_parameters_in_fp4_fit_one_mi355x_and_no_other() -> None:
    needed = {
        name: CAPACITY.minimum(520, "FP4", one.memory_gb) for name, one in ACCELERATORS.items()
    }
    assert needed == {"mi300x": 2, "mi325x": 2, "mi355x": 1}


def test_a_model_that_fills_the_memory_exactly_fits() -> None:
    # 100 x 1 x 1.1 = 110; in binary floating point the product is larger.
    assert 100 * 1 * 1.1 > 110
    assert CAPACITY.minimum(100, "FP8", 110) == 1


@given(st.floats(0.1, 5000), st.sampled_from(PRECISIONS), st.integers(1, 1000))
def test_the_minimum_fits_and_one_less_does_not(
    billions: float, precision: str, memory_gb: int
) -> None:
    assert precision in PRECISIONS
    needed = CAPACITY.minimum(billions, precision, memory_gb)
    size = CAPACITY.memory_gb(billions, precision)
    assert (needed - 1) * memory_gb < size <= needed * memory_gb
    # Never fewer accelerators for a wider format.
    assert needed <= CAPACITY.minimum(billions, "FP16", memory_gb)


def test_a_configuration_that_cannot_fit_is_refused_with_the_number_that_does() -> None:
    CAPACITY.require("llama3.1-405b", "mxfp4", 288, 1)
    with pytest.raises(UserError, match=r"891\.0 GB .* 1 × 288 GB: give .* at least 4 "):
        CAPACITY.require("llama3.1-405b", "bf16", 288, 1)
    with pytest.raises(UserError, match="no precision 'int3'; there are bf16"):
        CAPACITY.require("llama3.1-405b", "int3", 288, 8)
    with pytest.raises(UserError, match="no model 'llama9'; there are 1047b"):
        CAPACITY.require("llama9", "fp8", 288, 8)


def test_a_plan_whose_model_cannot_fit_is_refused() -> None:
    """405B in MXFP4 with 79 % of its layers takes 176.8 GB, with 67 % 148.5 GB."""
    smaller = ["experiment=amd-v5.1", "benchmark=llama3.1-405b", "compression=depth-pruned-21"]
    assert planned(*smaller, "hardware.accelerator.memory_gb=177").jobs
    with pytest.raises(UserError, match=r"pruned-21 .*176\.8 GB .*1 × 176 GB: .* at least 2 acc"):
        planned(*smaller, "hardware.accelerator.memory_gb=176")


def test_the_command_takes_names_and_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["capacity", "520", "gpt-3"]) == 0
    text = capsys.readouterr().out
    assert "GPT-3" in text and "520B" in text and "BLOOM" not in text
    assert "One AMD Instinct MI355X (288 GB) holds 10^9 parameters: 130.9 at FP16" in text
    for wrong in ("gpt-9", "0", "nan", "inf"):
        with pytest.raises(UserError, match=r"neither a model .* nor a number"):
            call(["capacity", wrong])


def test_every_model_has_a_source_and_is_distinct() -> None:
    assert all(model.source for model in CAPACITY.models.values())
    assert len({model.name for model in CAPACITY.models.values()}) == len(CAPACITY.models)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "capacity.yaml"
    path.write_text("overhead: 1.1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"capacity\.yaml: bytes_per_parameter: "):
        load(path)
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(UserError, match="can't be read"):
        load(path)
    assert math.isclose(load().overhead, 1.1)
