"""Mixtral's dataset in miniature: its grammar, columns and shipped files."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from steps.config.checks import AccuracyCheckConfig, Gates
from steps.prepare.ready import RECIPES
from steps.prepare.rehearsal.mixed import dataset, tasks
from steps.prepare.rehearsal.mixed.tasks import STOP, VOCABULARY, Task
from steps.prepare.rehearsal.tokenizer import END, NOTES, UNKNOWN
from tests.conftest import planned

MODEL = Path(tasks.__file__).parent / "model"
EVALUATION = 15_000


@pytest.fixture(scope="module")
def evaluation() -> list[Task]:
    return list(islice(tasks.tasks("evaluation", dataset.SEED), EVALUATION))


def test_the_rehearsals_words_keep_their_numbers() -> None:
    assert VOCABULARY.tokens[: len(NOTES.tokens)] == NOTES.tokens
    assert len(set(VOCABULARY.tokens)) == len(VOCABULARY.tokens)


def test_every_third_task_is_of_the_same_part_and_none_comes_twice(evaluation: list[Task]) -> None:
    assert Counter(task.part for task in evaluation) == dict.fromkeys(tasks.PARTS, 5000)
    assert [task.part for task in evaluation[:6]] == [*tasks.PARTS, *tasks.PARTS]
    assert len({task.prompt for task in evaluation}) == EVALUATION
    kinds = Counter(task.kind for task in evaluation)
    for kind in ("counted", "sum", "python", "cpp"):
        assert 2300 < kinds[kind] < 2700


def test_every_text_is_of_known_words(evaluation: list[Task]) -> None:
    for task in evaluation:
        for text in (task.prompt, task.answer, task.after):
            ids = VOCABULARY.encode(text)
            assert UNKNOWN not in ids
            assert VOCABULARY.decode(ids) == text


def test_splits_share_no_prompt(evaluation: list[Task]) -> None:
    prompts = {task.prompt for task in evaluation}
    others = [
        *islice(tasks.tasks("calibration", dataset.SEED), 2000),
        *islice(tasks.training(3, None), 3000),
        *islice(tasks.training(3, (1, 4)), 3000),
    ]
    assert prompts.isdisjoint(task.prompt for task in others)


def test_a_number_is_the_notes_or_the_sum(evaluation: list[Task]) -> None:
    said = "The answer is"
    for task in evaluation:
        if task.part != "GSM8K":
            continue
        if task.kind == "sum":
            one, other = (int(word) for word in task.prompt.split() if word.isdecimal())
            assert one + other == int(task.truth)
            assert task.answer.endswith(f"{one} + {other} = {task.truth} . {said} {task.truth} .")
        else:
            fact = task.answer.removeprefix(f"{said} ")
            assert fact in task.prompt and fact.split()[3] == task.truth


def test_the_gate_at_the_rules_length_asks_for_the_true_answers_lengths(
    evaluation: list[Task],
) -> None:
    plan = planned("experiment=rehearsal-mixtral-full")
    (job, *_) = (job for job in plan.jobs if job.step == "accuracy_check")
    gate = AccuracyCheckConfig.model_validate_json(job.config).gates["99"]
    assert isinstance(gate, Gates)
    ends = sum(task.part != "MBXP" for task in evaluation)
    tokens = sum(len(VOCABULARY.encode(task.answer)) for task in evaluation) + ends
    assert gate.tokens_per_sample == round(tokens / EVALUATION, 1)


def test_only_programs_go_on_after_their_stop_sequence(evaluation: list[Task]) -> None:
    for task in evaluation:
        program = task.part == "MBXP"
        assert bool(task.after) == program
        assert task.answer.endswith(STOP) == program
        assert task.answer.count(STOP) == program
        assert task.stop_ids == (VOCABULARY.encode(STOP) if program else [END])
    stop = VOCABULARY.encode(STOP)
    programs = [VOCABULARY.encode(task.answer) for task in evaluation if task.part == "MBXP"]
    # An engine that stops at the sequence's first token cuts the function's line off.
    assert len(stop) == 3 and all(ids.index(stop[0]) < len(ids) - 3 for ids in programs)
    assert all(10 < len(VOCABULARY.encode(task.after)) < 30 for task in evaluation if task.after)


@settings(max_examples=10)
@given(st.integers(1, 200), st.integers(1, 200))
def test_a_smaller_frame_is_the_head_of_a_larger_one(one: int, other: int) -> None:
    small, large = sorted((one, other))
    head = dataset.evaluation(large).head(small).to_dict("records")
    assert dataset.evaluation(small).to_dict("records") == head


def test_frames_have_the_columns_of_mlcommons_own() -> None:
    recipe = RECIPES["mixtral-15k"]
    for frame in (dataset.evaluation(60), dataset.calibration(60)):
        assert set(frame.columns) == set(recipe.columns)
        assert recipe.kind is not None and set(frame["dataset"]) == recipe.kind[1]
        for row in frame.to_dict("records"):
            for column, counted in recipe.lengths.items():
                assert row[column] and (not counted or row[counted] == len(row[column]))
            language, _, function = row["id"].partition("_")
            if row["dataset"] == "MBXP":
                assert language in ("python", "cpp") and f" {function} ( " in row["ref_output"]


def test_training_ends_every_answer_and_goes_on_after_programs() -> None:
    for ids, start in islice(dataset.training(1), 300):
        assert ids[-1] == END and ids.count(END) == 1 and 0 < start < len(ids) - 1


def test_shipped_tokenizer_agrees_with_the_dataset() -> None:
    library = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    for row in dataset.evaluation(200).to_dict("records"):
        assert library.encode(row["input"]).ids == row["tok_input"]
        assert library.decode(row["tok_ref_output"]) == row["ref_output"]
