"""Samples to fine-tune on, and adapters added to weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steps.base.errors import UserError
from steps.config.compression import NotesData, RulerData
from steps.prepare.checkpoint.finite import floats
from steps.prepare.checkpoint.layout import open_checkpoint, read_shard
from steps.prepare.finetune import data, merge_transform
from steps.prepare.finetune.adapters import merge
from tests import checkpoints

RANK, ALPHA, WIDTH, ROWS = 2, 6, 48, 40
ADAPTED = "model.layers.0.self_attn.q_proj.weight"


def plain(home: Path, dtype: str) -> Path:
    generator = np.random.default_rng(1)
    names = (ADAPTED, "model.layers.0.mlp.up_proj.weight", "lm_head.weight")
    tensors = {
        name: (dtype, (ROWS, WIDTH), checkpoints.random_bytes(generator, dtype, (ROWS, WIDTH)))
        for name in names
    }
    return checkpoints.write(home / "plain", tensors, shards=2)


def trained(home: Path, name: str = ADAPTED, shape: tuple[int, int] = (ROWS, WIDTH)) -> Path:
    """As peft saves them: A [rank, in] and B [out, rank] in fp32."""
    generator = np.random.default_rng(2)
    stem = f"{merge_transform.PREFIX}{name.removesuffix('.weight')}"
    factors = {
        f"{stem}.lora_A.weight": (RANK, shape[1]),
        f"{stem}.lora_B.weight": (shape[0], RANK),
    }
    tensors = {
        key: ("F32", size, generator.normal(size=size).astype(np.float32).tobytes())
        for key, size in factors.items()
    }
    written = checkpoints.write(home / "trained", tensors)
    (written / "model.safetensors").rename(written / merge_transform.WEIGHTS)
    settings = {"r": RANK, "lora_alpha": ALPHA}
    (written / merge_transform.SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    return written


def values(directory: Path, file: str | None = None) -> dict[str, Any]:
    if file:
        found = read_shard(directory / file).tensors
    else:
        found = tuple(open_checkpoint(directory).tensors)
    decoded = {tensor.name: (tensor, floats(tensor)) for tensor in found}
    return {
        name: content.reshape(tensor.shape)
        for name, (tensor, content) in decoded.items()
        if content is not None
    }


@pytest.mark.parametrize(("dtype", "error"), [("F32", 1e-6), ("BF16", 2**-8), ("F16", 2**-11)])
def test_adapters_are_added_to_the_weights_they_belong_to(
    tmp_path: Path, dtype: str, error: float
) -> None:
    source, adapters = plain(tmp_path, dtype), trained(tmp_path)
    merge(source, adapters, tmp_path / "merged")
    before, after = values(source), values(tmp_path / "merged")
    down, up = values(adapters, merge_transform.WEIGHTS).values()
    wanted = before.pop(ADAPTED) + ALPHA / RANK * up @ down
    np.testing.assert_allclose(after.pop(ADAPTED), wanted, rtol=error, atol=1e-5)
    for name, content in before.items():
        np.testing.assert_array_equal(after[name], content)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("model.layers.7.mlp.up_proj.weight", (ROWS, WIDTH)), (ADAPTED, (ROWS, WIDTH + 1))],
)
def test_adapters_of_another_model_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, int]
) -> None:
    source, adapters = plain(tmp_path, "BF16"), trained(tmp_path, name, shape)
    with pytest.raises(UserError, match="trained beside another model"):
        merge(source, adapters, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_notes_are_cut_into_training_and_validation(tmp_path: Path) -> None:
    settings = NotesData(kind="notes", training_samples=6, validation_samples=2)
    data.write(settings, tmp_path, 640, tmp_path)
    training, validation = lines(tmp_path / data.TRAINING), lines(tmp_path / data.VALIDATION)
    assert (len(training), len(validation)) == (6, 2)
    for sample in training + validation:
        asked = sample["labels"].count(data.IGNORED)
        assert 0 < asked < len(sample["input_ids"])
        assert sample["labels"][asked:] == sample["input_ids"][asked:]


def one_set(path: Path) -> tuple[RulerData, list[Path], Callable[[str], list[int]]]:
    """Two samples to train on and one more, of a tokenizer whose tokens are letters."""
    settings = RulerData(
        kind="ruler",
        training_samples_per_set=2,
        validation_samples_per_set=1,
        end=".",
    )
    return settings, [path], lambda text: [ord(letter) for letter in text]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"input": "a", "outputs": ["b"]}\n', "has 1 samples, and 3 are wanted"),
        ('{"input": "a", "outputs": ["b"]}\nno json\n', "line 2 of"),
        ('{"question": "a"}\n', "line 1 of"),
        (None, "can't be read"),
    ],
)
def test_a_set_that_ruler_did_not_write_is_named(
    tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "8192.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        data.ruler(*one_set(path))


def test_rulers_answers_follow_their_prompts(tmp_path: Path) -> None:
    path = tmp_path / "8192.jsonl"
    written = [{"input": f"p{number}", "outputs": ["x", "y"]} for number in range(4)]
    path.write_text("".join(json.dumps(one) + "\n" for one in written), encoding="utf-8")
    training, validation = data.ruler(*one_set(path))
    said = ["".join(map(chr, ids[start:])) for ids, start in training + validation]
    assert said == ["x\ny."] * 3
    assert [chr(ids[1]) for ids, _ in training + validation] == ["0", "1", "3"]
