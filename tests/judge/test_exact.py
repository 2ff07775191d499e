"""exact_match as gpt-oss-120b's scripts judge it: what counts as an answer, and how kinds weigh."""

import json
import time
from array import array
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.judge.scoring import exact
from steps.judge.scoring.score import score
from steps.mlperf.accuracy_text import read_scores
from steps.prepare.rehearsal.choices import questions

FINAL = "<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"<|channel|>analysis<|message|>Perhaps A.<|end|>{FINAL}C<|return|>", "C"),
        (f"{FINAL}**B**", "B"),
        ("<|channel|>final 537<|message|>d) because<|return|>", "D"),
        (f"{FINAL}The right one is clear. Answer: b", "B"),
        (f"{FINAL}Because of it", ""),
        (f"{FINAL}Both are wrong.\nFinal answer: (A)", "A"),
        ("FINAL ANSWER = C\nNo, wait. Answer = D", "D"),
        (f"{FINAL}['B']", "B"),
        (f"{FINAL}E", ""),
        ("", ""),
    ],
)
def test_the_option_that_counts(text: str, found: str) -> None:
    assert exact.letter(text, "D") == found


def test_of_ten_options_a_letter_in_the_final_channel_will_do() -> None:
    text = f"{FINAL}It has to be option J"
    assert (exact.letter(text, "J"), exact.letter(text, "D")) == ("J", "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{12} or rather \boxed{ 042 }", "42"),
        (r"Answer: 7, but \boxed{8}", "8"),
        ("Answer: 7\nanswer:  9", "9"),
        (r"\boxed{1000}", ""),
        ("Answer: 3.5", ""),
        ("it is 5", ""),
    ],
)
def test_the_number_that_counts(text: str, found: str) -> None:
    assert exact.number(text) == found


@given(st.text())
def test_whatever_a_model_writes_is_judged(text: str) -> None:
    assert exact.letter(text, "D") in ("", *"ABCD")
    assert exact.number(text) == "" or 0 <= int(exact.number(text)) <= exact.MOST


@given(st.text(alphabet="ABCDabcd *.:()\n<|>finalmessgchrt", max_size=60))
def test_odd_endings_are_judged_too(said: str) -> None:
    assert exact.letter(FINAL + said, "D") in ("", *"ABCD")


@pytest.mark.parametrize(
    "before", ["answer", "FINAL ANSWER:", f"{FINAL}Answer (", f"{FINAL}A", "\\boxed{"]
)
def test_thousands_of_blanks_are_judged_at_once(before: str) -> None:
    begun = time.process_time()
    for text in (before + " " * 3000 + "x", before + "\n" * 3000):
        exact.letter(text, "D")
        exact.number(text)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("text", ["Answer: {}", "\\boxed{{{}}}"])
def test_thousands_of_digits_are_no_answer(text: str) -> None:
    assert exact.number(text.format("9" * 5000)) == ""
    assert exact.number(text.format("0" * 5000 + "42")) == "42"


def test_kinds_weigh_by_their_questions() -> None:
    sums = {"aime25": 120.0, "gpqa_diamond": 495.0, "other": 1.0}
    counts = {"aime25": 240, "gpqa_diamond": 990, "other": 1}
    assert exact.whole(sums, counts) == pytest.approx(100 * (15 + 99 + 1) / (30 + 198 + 1))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("livecodebench_v6", "the tests of LiveCodeBench"),
        ("math500", "prm800k"),
        ("poems", "no metric scores"),
    ],
)
def test_kinds_that_cannot_be_judged_are_refused_by_name(kind: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"{kind}.*{said}"):
        exact.require(["gpqa_diamond", kind])


def test_a_log_is_scored_with_its_channels(tmp_path: Path) -> None:
    """Special tokens say where an answer is: they are no part of what other benchmarks score."""
    questions.save(tmp_path)
    stream = questions.questions("evaluation", 1, "high", ("gpqa_small", "aime_small"))
    asked = [next(stream) for _ in range(10)]
    answers = [list(one.answer) for one in asked]
    wrong = next(one for one in asked if one.kind == "gpqa_small")
    other = next(token for token in questions.LETTERS if token.strip() != wrong.truth)
    answers[asked.index(wrong)][-2] = questions.TOKENS.index(other)
    log = tmp_path / "mlperf_log_accuracy.json"
    entries = [
        {
            "seq_id": n,
            "qsl_idx": n,
            "data": array("i", ids).tobytes().hex(),
            "token_count": len(ids),
        }
        for n, ids in enumerate(answers)
    ]
    log.write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n", encoding="utf-8")
    table = pandas.DataFrame(
        {"dataset": [one.kind for one in asked], "ground_truth": [one.truth for one in asked]}
    )
    found = score("gpt-oss-120b", log, table, tmp_path / "tokenizer.json")
    assert found.result()["exact_match"] == 90.0
    text = tmp_path / "accuracy.txt"
    text.write_text(found.text(), encoding="utf-8")
    assert float(read_scores(text, ("exact_match",))["exact_match"][-1][1]) == 90.0
    assert "gpqa_small: 4 of 5 right" in found.text()
