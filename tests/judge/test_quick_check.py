"""The verdict on a few answers: what interval, when it stops the flow."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steps.base.bootstrap import ratio_interval
from steps.base.record import publish
from steps.config.verdicts import Complaint, Verdict
from steps.prepare.rehearsal import dataset
from tests.conftest import ROOT
from tests.running import command

PROMPTS = 40


@given(st.lists(st.floats(1, 100), min_size=2, max_size=30), st.floats(0.1, 2))
def test_a_constant_ratio_has_no_spread(reference: list[float], share: float) -> None:
    values = np.array(reference)
    assert ratio_interval(values * share, values) == pytest.approx((100 * share,) * 3)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(1, 100)), min_size=2, max_size=30))
def test_the_interval_surrounds_the_ratio(pairs: list[tuple[float, float]]) -> None:
    values, reference = np.array(pairs).T
    ratio, low, high = ratio_interval(values, reference)
    assert low <= high
    assert ratio == pytest.approx(100 * values.sum() / reference.sum())


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator, hits = np.random.default_rng(3), 0
    for _ in range(100):
        reference = np.full(200, 100.0)
        values = 100.0 * (generator.random(200) < 0.9)
        _, low, high = ratio_interval(values, reference)
        hits += low <= 90 <= high
    assert 88 <= hits <= 100


@pytest.mark.parametrize("holds", [True, False])
def test_a_verdict_is_valid_if_and_only_if_it_has_no_complaint(holds: bool) -> None:
    wrong = Complaint(code="quick", words="9 % are kept")
    assert Verdict(holds=holds, complaints=() if holds else (wrong,)).why == str(
        "" if holds else wrong
    )
    with pytest.raises(ValidationError, match="says that there is no complaint, or there is one"):
        Verdict(holds=holds, complaints=(wrong,) if holds else ())


def check(
    home: Path, answers: list[list[int]], minimum: float, right: list[list[int]] | None = None
) -> subprocess.CompletedProcess[str]:
    """`right`: the source's answers, all of which are right without it."""
    frame = dataset.evaluation(PROMPTS)
    right = right or [[*row, 2] for row in frame["tok_output"]]
    with publish(home / "dataset", step="dataset", config={}, inputs={}, code="") as workspace:
        frame.to_pickle(workspace.directory / "evaluation.pkl")
    with publish(home / "model", step="prune", config={}, inputs={}, code="") as workspace:
        shutil.copy(ROOT / "steps/prepare/rehearsal/model/tokenizer.json", workspace.directory)
        (workspace.directory / "model.safetensors").write_bytes(bytes(1_500_000))
    for role, given_answers in (("run", answers), ("reference", right)):
        with publish(home / role, step="quick_run", config={}, inputs={}, code="") as workspace:
            text = json.dumps(given_answers)
            (workspace.directory / "answers.json").write_text(text, encoding="utf-8")
    roles = ("run", "reference", "dataset", "model")
    inputs = {role: home / role / "manifest.json" for role in roles}
    return subprocess.run(
        command("quick_check", {"after": "prune", "minimum": minimum}, inputs, home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def result(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "out/manifest.json").read_text())["result"]
    return found


def test_answers_as_good_as_the_source_pass(tmp_path: Path) -> None:
    right = [[*row, 2] for row in dataset.evaluation(PROMPTS)["tok_output"]]
    done = check(tmp_path, right, 0.999)
    assert done.returncode == 0, done.stderr
    found = result(tmp_path)
    assert (found["ratio"], found["low"], found["high"]) == (100.0, 100.0, 100.0)
    assert found["samples"] == PROMPTS
    assert found["gigabytes"] == 0.0015


def test_lost_answers_do_not_hold_and_are_told_in_one_sentence(tmp_path: Path) -> None:
    right = [[*row, 2] for row in dataset.evaluation(PROMPTS)["tok_output"]]
    half = [answer if number % 2 else [2] for number, answer in enumerate(right)]
    done = check(tmp_path, half, 0.98)
    assert done.returncode == 0
    found = result(tmp_path)
    assert found["holds"] is False
    assert found["complaints"][0]["limit"] == 98.0
    said = done.stderr.splitlines()[-2]
    assert said.startswith("after prune the weights keep 50.00 % [")
    assert "98.00 % are wanted" in said


def test_a_source_that_answers_too_little_right_gives_no_interval(tmp_path: Path) -> None:
    """A resample without a right answer has no ratio."""
    right = [[*row, 2] for row in dataset.evaluation(PROMPTS)["tok_output"]]
    done = check(tmp_path, right, 0.98, [right[0], *[[2]] * (PROMPTS - 1)])
    assert done.returncode == 1
    assert f"score above 0 on 1 of {PROMPTS} prompts, too few for an interval" in done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_minimum_of_zero_only_measures(tmp_path: Path) -> None:
    done = check(tmp_path, [[2]] * PROMPTS, 0.0)
    assert done.returncode == 0, done.stderr
    assert result(tmp_path)["high"] == 0.0
