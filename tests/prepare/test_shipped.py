"""The weights in git and their tokenizers: as manifests say, with nothing else beside them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from steps.base.record import sha256_file
from steps.prepare.pipeline import PIPELINE, TOKENIZERS
from steps.prepare.rehearsal import tokenizer
from steps.prepare.rehearsal.choices import questions
from steps.prepare.rehearsal.mixed.tasks import VOCABULARY
from steps.prepare.rehearsal.shapes import tokenizer as clip
from tests.conftest import ROOT

REHEARSAL = ROOT / "steps/prepare/rehearsal"
NARROW = ROOT / "steps/judge/scoring/narrow/weights"
SHIPPED = (
    *(REHEARSAL / name for name in ("model", "mixed/model", "choices/model", "shapes/weights")),
    NARROW,
)
OTHERS = {"manifest.json", "reference.json"}
"""The second has the scores of the weights, which are measured later."""

LARGEST_BYTES = 8_000_000


def manifest(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "manifest.json").read_text(encoding="utf-8"))
    return found


def test_every_manifest_among_the_steps_is_known_here() -> None:
    assert {path.parent for path in (ROOT / "steps").glob("**/manifest.json")} == set(SHIPPED)


@pytest.mark.parametrize("home", SHIPPED, ids=lambda home: str(home.relative_to(ROOT)))
def test_shipped_files_are_those_of_the_manifest(home: Path) -> None:
    files = manifest(home)["files"]
    there = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert there - OTHERS == files.keys()
    for name, entry in files.items():
        assert (home / name).stat().st_size == entry["bytes"] <= LARGEST_BYTES
        assert sha256_file(home / name) == entry["sha256"]


@pytest.mark.parametrize("home", SHIPPED, ids=lambda home: str(home.relative_to(ROOT)))
def test_a_manifest_says_how_the_weights_were_made(home: Path) -> None:
    recipe = manifest(home)["recipe"]
    assert {"seed", "threads", "versions"} <= recipe.keys()
    assert {"python", "torch"} <= recipe["versions"].keys()


def test_the_configured_scorers_are_the_shipped_ones() -> None:
    path = ROOT / "conf/benchmark/rehearsal-sdxl.yaml"
    scorers = yaml.safe_load(path.read_text(encoding="utf-8"))["scorer_weights"]
    for name, file in (
        ("clip", "clip/model.safetensors"),
        ("inception", "inception.pth"),
        ("statistics", "statistics.npz"),
    ):
        assert scorers[name]["sha256"] == manifest(NARROW)["files"][file]["sha256"]


def clips(padding: str) -> Callable[[Path], None]:
    return lambda target: clip.save(target / "tokenizer", padding)


@pytest.mark.parametrize(
    ("shipped", "save"),
    [
        (REHEARSAL / "model", tokenizer.save),
        (REHEARSAL / "mixed/model", lambda target: tokenizer.save(target, VOCABULARY)),
        (REHEARSAL / "choices/model", questions.save),
        (REHEARSAL / "shapes/weights" / PIPELINE / TOKENIZERS[0], clips(clip.END)),
        (REHEARSAL / "shapes/weights" / PIPELINE / TOKENIZERS[1], clips(clip.FIRST)),
    ],
    ids=lambda value: str(value.relative_to(ROOT)) if isinstance(value, Path) else "",
)
def test_tokenizers_are_written_as_they_were(
    shipped: Path, save: Callable[[Path], None], tmp_path: Path
) -> None:
    save(tmp_path)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert path.read_bytes() == (shipped / path.name).read_bytes(), path.name
