"""TEST01 and TEST04: verified as the official scripts do, packaged as the validator wants it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.compliance.answers import compare
from steps.compliance.command import command
from steps.compliance.speed import Speeds
from steps.errors import UserError
from steps.rounds import load
from steps.validate.submission import validate
from tests.validate import trees
from tests.validate.damages import ANSWERS, DETAIL, PERFORMANCE, TEST01, TEST04, log
from tests.validate.trees import SDXL

FULL = trees.answers(200, timed=False, salt=7)
SAMPLED = trees.answers(120, timed=False, salt=7)


def arguments(root: Path, test: str, output: Path) -> list[str]:
    place = TEST01 if test == "TEST01" else TEST04
    accuracy = ["--accuracy", str(root / SDXL / "accuracy")] if test == "TEST01" else []
    return [
        test,
        *("--performance", str(root / SDXL / PERFORMANCE)),
        *("--run", str(root / place / PERFORMANCE)),
        *accuracy,
        *("--output", str(output)),
    ]


@pytest.fixture
def runs(fresh_tree: Callable[[], Path]) -> Path:
    """A tree whose runs have their full logs."""
    root = fresh_tree()
    trees.write(root / SDXL / "accuracy" / ANSWERS, FULL)
    trees.write(root / TEST01 / PERFORMANCE / ANSWERS, SAMPLED)
    return root


@pytest.mark.parametrize(("test", "place"), [("TEST01", TEST01), ("TEST04", TEST04)])
def test_what_is_packaged_holds_by_the_rules(
    test: str, place: str, runs: Path, fresh_tree: Callable[[], Path], tmp_path: Path
) -> None:
    assert command(arguments(runs, test, tmp_path / "out")) == 0
    root = fresh_tree()
    shutil.rmtree(root / place)
    shutil.copytree(tmp_path / "out" / test, root / place)
    assert validate(root, "v5.1", processes=1).valid()


@pytest.mark.parametrize(
    ("test", "key", "value", "says"),
    [
        ("TEST01", "result_samples_per_second", 35.9, "89.8%"),
        ("TEST01", "result_samples_per_second", 44.1, "110.2%"),
        ("TEST04", "result_samples_per_second", 44.0, "less than 110%"),
        ("TEST04", "result_validity", "INVALID", "not VALID"),
        ("TEST04", "effective_performance_issue_same", False, "audit.config"),
        ("TEST01", "effective_scenario", "Server", "one scenario"),
    ],
)
def test_a_run_that_fails_leaves_nothing(
    test: str, key: str, value: Any, says: str, runs: Path, tmp_path: Path
) -> None:
    place = TEST01 if test == "TEST01" else TEST04
    log(f"{place}/{PERFORMANCE}/{DETAIL}", key, value)(runs)
    with pytest.raises(UserError, match=says):
        command(arguments(runs, test, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_another_answer_is_named(runs: Path, tmp_path: Path) -> None:
    other = SAMPLED.replace('"qsl_idx" : 33, "data" : "07', '"qsl_idx" : 33, "data" : "08')
    trees.write(runs / TEST01 / PERFORMANCE / ANSWERS, other)
    with pytest.raises(UserError, match="sample 33 differs, 1 in all"):
        command(arguments(runs, "TEST01", tmp_path / "out"))


@pytest.mark.parametrize("text", [FULL[:5000], FULL.removesuffix("]\n"), "", "[\n{}\n]\n"])
def test_a_log_that_is_cut_off_is_refused(text: str, runs: Path, tmp_path: Path) -> None:
    trees.write(runs / SDXL / "accuracy" / ANSWERS, text)
    with pytest.raises(UserError, match="untruncated"):
        command(arguments(runs, "TEST01", tmp_path / "out"))


def test_only_the_first_element_counts(tmp_path: Path) -> None:
    """As in the official script: the rest of an answer may differ."""
    trees.write(tmp_path / "a", FULL)
    trees.write(tmp_path / "b", SAMPLED.replace("02000000", "03000000"))
    assert compare(tmp_path / "a", tmp_path / "b", "int32").passed()


def test_samples_that_the_accuracy_run_lacks_are_counted(tmp_path: Path) -> None:
    trees.write(tmp_path / "a", trees.answers(100, timed=False, salt=7))
    trees.write(tmp_path / "b", SAMPLED)
    found = compare(tmp_path / "a", tmp_path / "b", "byte")
    assert (found.matched, found.missing, found.passed()) == (100, 20, True)
    trees.write(tmp_path / "a", "[\n]\n")
    assert not compare(tmp_path / "a", tmp_path / "b", "byte").passed()


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6))
def test_the_bounds_are_the_official_ones(reference: float, measured: float) -> None:
    tests = load("v5.1").compliance
    assert Speeds(tests["TEST04"], reference, measured).passed() == (measured < reference * 1.1)
    inside = reference * 0.9 <= measured <= reference * 1.1
    assert Speeds(tests["TEST01"], reference, measured).passed() == inside
