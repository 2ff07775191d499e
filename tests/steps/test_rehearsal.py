"""The rehearsal benchmark: its grammar, tokenizer, data, shipped files and compressed copies."""

import hashlib
import json
from itertools import islice
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("pandas")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from steps.errors import UserError
from steps.rehearsal import compress, dataset, notes, tokenizer

MODEL = Path(compress.__file__).parent / "model"
EVALUATION = 24_576


@pytest.fixture(scope="module")
def prompts() -> list[notes.Prompt]:
    return list(islice(notes.prompts("evaluation", dataset.SEED), EVALUATION))


def test_evaluation_prompts_are_unique(prompts: list[notes.Prompt]) -> None:
    assert len({prompt.text for prompt in prompts}) == EVALUATION


def test_lengths_lie_in_the_promised_ranges(prompts: list[notes.Prompt]) -> None:
    asked = [len(dataset.prompt_ids(prompt)) for prompt in prompts]
    answered = [len(tokenizer.encode(prompt.answer)) + 1 for prompt in prompts]
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
            ids = tokenizer.encode(text)
            assert tokenizer.UNKNOWN not in ids
            assert tokenizer.decode(ids) == text


def test_shipped_tokenizer_agrees_with_the_dataset() -> None:
    library = pytest.importorskip("tokenizers").Tokenizer.from_file(str(MODEL / "tokenizer.json"))
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


def test_manifest_matches_the_shipped_files() -> None:
    manifest = json.loads((MODEL / "manifest.json").read_text(encoding="utf-8"))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= manifest["files"].keys()
    for name, entry in manifest["files"].items():
        content = (MODEL / name).read_bytes()
        assert len(content) == entry["bytes"]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert manifest["files"]["model.safetensors"]["bytes"] <= 8_000_000


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    source = tmp_path / "tiny"
    source.mkdir()
    generator = torch.Generator().manual_seed(1)
    weights = {"model.embed_tokens.weight": torch.randn(8, 32, generator=generator).bfloat16()}
    for layer in range(12):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        weights[name] = torch.randn(4, 32, generator=generator).bfloat16()
    save_file(weights, source / "model.safetensors")
    (source / "config.json").write_text('{"num_hidden_layers": 12}', encoding="utf-8")
    return source


def test_pruning_renumbers_the_layers_behind(tiny: Path, tmp_path: Path) -> None:
    compress.prune_depth(tiny, tmp_path / "pruned", 2, 4)
    before = load_file(tiny / "model.safetensors")
    after = load_file(tmp_path / "pruned" / "model.safetensors")
    origin = [0, 1, *range(5, 12)]
    assert len(after) == 1 + len(origin)
    for new, old in enumerate(origin):
        name = "model.layers.{}.mlp.up_proj.weight"
        assert torch.equal(after[name.format(new)], before[name.format(old)])
    config = json.loads((tmp_path / "pruned" / "config.json").read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] == 9


@pytest.mark.parametrize(("first", "last"), [(0, 11), (5, 4), (-1, 2), (10, 12)])
def test_pruning_refuses_impossible_ranges(
    tiny: Path, tmp_path: Path, first: int, last: int
) -> None:
    with pytest.raises(UserError, match="can't drop layers"):
        compress.prune_depth(tiny, tmp_path / "pruned", first, last)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


@pytest.mark.parametrize(("format", "levels"), [("fp8", 256), ("int2", 4)])
def test_quantizing_rounds_only_decoder_linears(
    tiny: Path, tmp_path: Path, format: compress.Format, levels: int
) -> None:
    compress.quantize_simulated(tiny, tmp_path / "q", format)
    before = load_file(tiny / "model.safetensors")
    after = load_file(tmp_path / "q" / "model.safetensors")
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(after[name], before[name])
    assert all(len(row.unique()) <= levels for row in after[name])


def test_a_directory_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no checkpoint directory"):
        compress.prune_depth(tmp_path, tmp_path / "out", 0, 1)
