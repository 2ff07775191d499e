"""Captions of pictures: the embedded world, and files in the form of MLCommons'."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import pytest

from steps.base.errors import UserError
from steps.base.record import Manifest, publish
from steps.config.artifacts import DatasetConfig
from steps.prepare import captions, samples
from steps.prepare.dataset import step
from steps.prepare.pipeline import (
    INDEX,
    PIPELINE,
    SCHEDULER,
    TOKENIZERS,
    files,
    home,
    scheduling,
    variant,
)
from steps.prepare.rehearsal.shapes import tokenizer, world

QUIET: Any = SimpleNamespace(say=lambda text: None)
FILES = ("captions_source.tsv", "latents.pt", "val2014.npz")


def weights(folder: Path) -> Path:
    """The manifest of weights that have tokenizers and noise, and nothing else."""
    with publish(folder, step="model", config={}, inputs={}, code="") as workspace:
        place = workspace.directory / PIPELINE
        for name, padding in zip(TOKENIZERS, (tokenizer.END, tokenizer.FIRST), strict=True):
            tokenizer.save(place / name, padding)
        (place / INDEX).write_text("{}", encoding="utf-8")
        (workspace.directory / samples.LATENTS).write_bytes(b"noise")
    return folder / "manifest.json"


def made(tmp_path: Path, config: dict[str, object]) -> Path:
    parsed = DatasetConfig.model_validate_json(json.dumps(config))
    inputs = {"model": weights(tmp_path / "model")}
    out = tmp_path / "dataset"
    with publish(out, step="dataset", config={}, inputs=inputs, code="") as workspace:
        step(parsed, inputs, workspace, QUIET)
    return out


SHAPES = {"name": "x", "recipe": "shapes", "evaluation_count": 40, "calibration_count": 8}


def test_the_world_is_shared_out_without_overlap_and_always_alike() -> None:
    parts = (world.evaluation(), world.calibration(), world.training())
    found = [scene.caption for part in parts for scene in part]
    assert len(found) == len(set(found)) == 9072 and len(parts[0]) == 5000
    assert hashlib.sha256("\n".join(found).encode()).hexdigest()[:12] == "46f6b43a48ea"


def test_every_caption_fits_the_encoders_whole_and_is_like_no_other() -> None:
    ids, merges = tokenizer.vocabulary()
    first, last = ids[tokenizer.BEGIN], ids[tokenizer.END]
    words = captions.Words(
        captions.clip(ids, merges, tokenizer.BEGIN, tokenizer.END), tokenizer.LENGTH, last
    )
    found = [words.ids(scene.caption) for scene in world.scenes()]
    assert max(length for _, length in found) == 23 < tokenizer.LENGTH
    assert {len(row) for row, _ in found} == {tokenizer.LENGTH}
    assert len({tuple(row) for row, _ in found}) == len(found)
    for row, length in found:
        assert row[0] == first and set(row[length - 1 :]) == {last}
        assert last not in row[1 : length - 1]


def test_the_shapes_have_rows_for_both_encoders(tmp_path: Path) -> None:
    out = made(tmp_path, SHAPES)
    found = samples.load(out / "manifest.json")
    assert len(found.evaluation) == 40 and len(found.calibration) == 8
    assert {len(row) for row in found.evaluation} == {2 * tokenizer.LENGTH}
    lines = (out / "captions_source.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0].split("\t")[2] == "caption" and len(lines) == 41
    assert lines[1].split("\t")[2] == world.evaluation()[0].caption
    assert Manifest.read(out / "manifest.json").file(samples.LATENTS).read_bytes() == b"noise"


def published(folder: Path, rows: list[str]) -> dict[str, object]:
    """MLCommons' three files below a directory, and the configuration with their digests."""
    (folder / "coco2014").mkdir(parents=True)
    text = "id\timage_id\tcaption\n" + "".join(f"{n}\t{n}\t{row}\n" for n, row in enumerate(rows))
    digests = {}
    for name, data in zip(FILES, (text.encode(), b"latents", b"statistics"), strict=True):
        (folder / "coco2014" / name).write_bytes(data)
        digests[name] = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return {
        "name": "x",
        "recipe": "coco-2014",
        "evaluation_count": len(rows),
        "calibration_count": 4,
        "path": str(folder),
        "files": digests,
    }


def test_mlcommons_files_are_taken_by_their_digests(tmp_path: Path) -> None:
    rows = ["a red circle", "A blue  picture, in the middle"]
    out = made(tmp_path, published(tmp_path / "held", rows))
    assert (out / "val2014.npz").read_bytes() == b"statistics"
    frame = pandas.read_pickle(out / "evaluation.pkl")
    assert list(frame["caption"]) == rows
    ids, _ = tokenizer.vocabulary()
    wanted = [ids[f"{word}</w>"] for word in ("a", "blue", "picture", ",", "in", "the", "middle")]
    assert frame["tok_input"][1][1:8] == wanted
    assert len(samples.load(out / "manifest.json").calibration) == 4


def other(config: dict[str, object], home: Path) -> None:
    (home / "coco2014/latents.pt").write_bytes(b"others")


def absent(config: dict[str, object], home: Path) -> None:
    (home / "coco2014/val2014.npz").unlink()


def nowhere(config: dict[str, object], home: Path) -> None:
    config["path"] = str(home / "no")


def more(config: dict[str, object], home: Path) -> None:
    config["evaluation_count"] = 9


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (other, "latents.pt isn't MLCommons' latents.pt: its md5 is"),
        (absent, "has no val2014.npz; correct benchmark.dataset.path"),
        (nowhere, "isn't a directory; correct benchmark.dataset.path"),
        (more, "9 captions are wanted, coco-2014 has 1"),
    ],
)
def test_other_files_are_refused_and_nothing_is_left(
    tmp_path: Path, spoil: Callable[[dict[str, object], Path], None], words: str
) -> None:
    config = published(tmp_path / "held", ["a red circle"])
    spoil(config, tmp_path / "held")
    with pytest.raises(UserError, match=words):
        made(tmp_path, config)
    assert not (tmp_path / "dataset/manifest.json").exists()


def test_a_caption_that_an_encoder_cannot_take_whole_is_refused(tmp_path: Path) -> None:
    config = published(tmp_path / "held", ["a red circle", "a " + 30 * "very " + "red circle"])
    with pytest.raises(UserError, match=r"caption of sample 1 takes .* and the encoders take 24"):
        made(tmp_path, config)


def test_tokenizers_that_are_damaged_are_refused(tmp_path: Path) -> None:
    manifest = weights(tmp_path / "model")
    place = home(manifest.parent) / TOKENIZERS[1]
    (place / "vocab.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="tokenizer_2 doesn't hold CLIP's tokenizer"):
        captions.Words.read(place)


def test_a_pipeline_is_found_in_both_layouts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model_index\.json, so no pipeline of diffusers"):
        home(tmp_path)
    for place in (tmp_path / "one" / PIPELINE, tmp_path / "two" / "zip" / PIPELINE, tmp_path / "3"):
        (place / "unet").mkdir(parents=True)
        (place / INDEX).write_text("{}", encoding="utf-8")
    assert home(tmp_path / "one") == tmp_path / "one" / PIPELINE
    assert home(tmp_path / "two") == tmp_path / "two/zip" / PIPELINE
    assert home(tmp_path / "3") == tmp_path / "3"


def test_a_pipeline_needs_its_scheduler(tmp_path: Path) -> None:
    place = tmp_path / PIPELINE
    place.mkdir()
    with pytest.raises(UserError, match="a pipeline needs its scheduler; give the whole"):
        scheduling(place)
    beside = tmp_path / SCHEDULER / "scheduler"
    beside.mkdir(parents=True)
    (beside / "scheduler_config.json").write_text("{}", encoding="utf-8")
    assert scheduling(place) == beside


def test_half_precision_files_are_read_where_there_are_no_others(tmp_path: Path) -> None:
    folder = tmp_path / "unet"
    folder.mkdir()
    (folder / "diffusion_pytorch_model.fp16.safetensors").touch()
    assert variant(tmp_path) == "fp16"
    assert [path.name for path in files(tmp_path, "unet")] == [
        path.name for path in folder.iterdir()
    ]
    whole = folder / "diffusion_pytorch_model.safetensors"
    whole.touch()
    assert variant(tmp_path) is None and files(tmp_path, "unet") == [whole]
