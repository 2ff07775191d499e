"""The rehearsal benchmark: its grammar, tokenizer, data and shipped files."""

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from steps.prepare.rehearsal import dataset, notes, tokenizer
from steps.prepare.rehearsal.tokenizer import NOTES

MODEL = Path(notes.__file__).parent / "model"
EVALUATION = 24_576


@pytest.fixture(scope="module")
def prompts() -> list[notes.Prompt]:
    return list(islice(notes.prompts("evaluation", dataset.SEED), EVALUATION))


def test_evaluation_prompts_are_unique(prompts: list[notes.Prompt]) -> None:
    assert len({prompt.text for prompt in prompts}) == EVALUATION


def test_lengths_lie_in_the_promised_ranges(prompts: list[notes.Prompt]) -> None:
    asked = [len(dataset.prompt_ids(prompt)) for prompt in prompts]
    answered = [len(NOTES.encode(prompt.answer)) + 1 for prompt in prompts]
    assert min(asked) >= 20 and max(asked) <= 400
    assert min(answered) >= 10 and max(answered) <= 150
    assert 90 <= sum(asked) / EVALUATION <= 120
    assert 25 <= sum(answered) / EVALUATION <= 35


def test_lengths_do_not_depend_on_the_position(prompts: list[notes.Prompt]) -> None:
    means = [
        sum(len(prompt.answer.split()) for prompt in prompts[start : start + 4096]) / 4096
        for start in range(0, EVALUATION, 4096)
    ]
    assert max(means) - min(means) < 3


def test_splits_share_no_note(prompts: list[notes.Prompt]) -> None:
    first = {prompt.facts[0] for prompt in prompts}
    for split in ("calibration", "training"):
        assert first.isdisjoint(p.facts[0] for p in islice(notes.prompts(split, 1), 1000))
    staged = dataset.training(3, (1, 4), (1, 4))
    assert first.isdisjoint(prompt.facts[0] for prompt in islice(staged, 1000))


@settings(max_examples=15)
@given(st.integers(1, 300), st.integers(1, 300))
def test_a_smaller_frame_is_the_head_of_a_larger_one(one: int, other: int) -> None:
    small, large = sorted((one, other))
    head = dataset.evaluation(large).head(small).to_dict("records")
    assert dataset.evaluation(small).to_dict("records") == head


@settings(max_examples=200)
@given(st.randoms(use_true_random=False), st.sampled_from(notes.KINDS), st.integers(1, 16))
def test_answers_repeat_facts_of_the_note(source, kind: notes.Kind, facts: int) -> None:
    answered = {"named": 1, "all": facts}.get(kind, source.randint(1, facts))
    prompt = notes.make(source, "training", kind, facts, answered)
    assert prompt.answer in prompt.text
    assert len(prompt.answer.split()) == answered * notes.FACT_WORDS
    words = [word for fact in prompt.facts for word in fact.split() if word != "."]
    assert len(words) == len(set(words))


def test_tokenizer_round_trips_every_text(prompts: list[notes.Prompt]) -> None:
    for prompt in prompts:
        for text in (prompt.text, prompt.answer):
            ids = NOTES.encode(text)
            assert tokenizer.UNKNOWN not in ids
            assert NOTES.decode(ids) == text


def test_shipped_tokenizer_agrees_with_the_dataset() -> None:
    library = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    for row in dataset.evaluation(200).to_dict("records"):
        assert library.encode(row["input"]).ids == row["tok_input"]
        assert library.decode(row["tok_output"]) == row["output"]


def test_frame_has_the_official_columns() -> None:
    frame = dataset.calibration(50)
    assert tuple(frame.columns) == dataset.COLUMNS
    for row in frame.to_dict("records"):
        assert row["input"] == f"{row['system_prompt']} {row['question']}"
        assert row["tok_input_length"] == len(row["tok_input"])
        assert row["tok_output_length"] == len(row["tok_output"])


FACT = "Anna sold Smith 37 large red Oslo lamps ."
OTHER = "Boris gave Jones 38 small blue Paris chairs ."


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        (f"{FACT} {OTHER}", 1.0),
        (FACT, 0.5),
        (f"{OTHER} {FACT}", 0.0),
        (f"{FACT} {OTHER.replace('38', '39')}", 0.5),
        (f"{FACT} {OTHER} {FACT} {OTHER}", 0.5),
        ("", 0.0),
    ],
)
def test_fact_level_exact_match(answer: str, share: float) -> None:
    assert notes.exact_facts(answer, f"{FACT} {OTHER}") == share
