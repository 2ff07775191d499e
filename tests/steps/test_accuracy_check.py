"""Gates, completeness and the text that the official checker reads."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps import schema
from steps.accuracy_check import accuracy_text, by_index, judged, prove_whole
from steps.errors import UserError
from steps.loadgen_log import Answer, Detail
from steps.plan import make
from steps.rouge import rouge
from tests.conftest import ROOT

GATE = schema.Gates(
    factor=0.99,
    reference={"rouge1": 50.0},
    tokens_per_sample=100.0,
    tokens_per_sample_tolerance=0.1,
)


@pytest.fixture(scope="module")
def config() -> schema.AccuracyCheckConfig:
    job = next(j for j in make(ROOT, ["scenario=Server"]).jobs if j.step == "accuracy_check")
    return schema.AccuracyCheckConfig.model_validate_json(job.config)


@pytest.mark.parametrize(
    ("score", "tokens", "passed"),
    [
        (49.5, 100.0, True),
        (49.4999, 100.0, False),
        (80.0, 90.0, True),
        (80.0, 89.9, False),
        (80.0, 110.0, True),
        (80.0, 110.1, False),
    ],
)
def test_gates_at_their_edges(score: float, tokens: float, passed: bool) -> None:
    verdict = judged({"rouge1": score, "tokens_per_sample": tokens}, GATE)
    assert verdict["passed"] is passed


def whole(config: schema.AccuracyCheckConfig, **changes: object) -> Detail:
    values = {
        "effective_test_mode": "AccuracyOnly",
        "effective_scenario": "Server",
        "qsl_reported_total_count": config.dataset_size,
    }
    return Detail(Path("log"), {**values, **changes})


def test_only_a_whole_accuracy_run_proves_anything(config: schema.AccuracyCheckConfig) -> None:
    prove_whole(whole(config), config)
    for change in (
        {"effective_test_mode": "PerformanceOnly"},
        {"effective_scenario": "Offline"},
        {"qsl_reported_total_count": 100},
    ):
        with pytest.raises(UserError, match="proves nothing"):
            prove_whole(whole(config, **change), config)


@given(st.permutations(range(20)))
def test_answers_are_put_in_dataset_order(order: list[int]) -> None:
    answers = [Answer(index, [index], None, 1) for index in order]
    assert [answer.tokens for answer in by_index(iter(answers), 20)] == [[i] for i in range(20)]


@given(st.permutations(range(20)), st.integers(0, 19))
def test_a_missing_or_doubled_answer_is_refused(order: list[int], at: int) -> None:
    answers = [Answer(index, [index], None, 1) for index in order]
    with pytest.raises(UserError, match="19 samples of 20"):
        by_index(iter(answers[:at] + answers[at + 1 :]), 20)
    with pytest.raises(UserError, match="logged twice"):
        by_index(iter([*answers, answers[at]]), 20)


def test_the_text_is_readable_for_the_official_checker() -> None:
    scores = {"rouge1": 44.5, "rouge2": 22.0, "rougeL": 28.25, "tokens_per_sample": 290.1}
    text = accuracy_text(scores, 100, 10, 2901)
    line = next(line for line in text.splitlines() if line.startswith("{"))
    assert "np." not in line
    # The checker's own expectations: quoted key, colon, blank, digits (§8 of the rules).
    for key, value in {**scores, "rougeLsum": 28.25}.items():
        assert re.match(rf".*'{key}':\s+'?{re.escape(str(value))}", line)
    assert re.match(r".*'gen_len': 100[,}]", line)


def test_rouge_does_not_depend_on_how_it_is_shared_out() -> None:
    truths = [f"anna sold {n} lamps to boris" for n in range(600)]
    answers = [f"anna sold {n % 7} lamps to boris" for n in range(600)]
    seen: list[int] = []
    whole = rouge(truths, answers, seen.append)
    parts = [
        rouge(truths[i : i + 100], answers[i : i + 100], lambda n: None) for i in range(0, 600, 100)
    ]
    assert sum(seen) == 600
    for metric, value in whole.items():
        assert value == pytest.approx(sum(part[metric] for part in parts) / 6)
    assert rouge(truths[:10], truths[:10], lambda n: None)["rougeL"] == pytest.approx(100)
