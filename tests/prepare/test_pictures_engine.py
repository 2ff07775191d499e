"""The embedded pipeline in the real engine, and its tokenizers beside those of transformers."""

import json
import os
import subprocess

import pytest

from tests.conftest import ROOT, planned
from tests.interpreter import interpreter

pytestmark = pytest.mark.engine

LIMIT_S = 600.0
SCRIPT = """
import json, shutil, sys
from pathlib import Path
import numpy
from steps.judge.scoring.images import Measured
from steps.judge.scoring.narrow import drawn, study
from steps.prepare import captions, pipeline
from steps.prepare.rehearsal.shapes import world
from steps.run.engines.diffusers_engine import DiffusersEngine
from steps.run.engines.engine import Start
from steps.base.errors import UserError
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

scratch = Path(sys.argv[1])
found = {}
home = pipeline.home(drawn.WEIGHTS)
texts = [scene.caption for scene in world.scenes()[::97]] + ["Zebras, 3 of them!", "an It's  x"]
ours = [captions.Words.read(home / name) for name in pipeline.TOKENIZERS]
theirs = [CLIPTokenizer.from_pretrained(home / name) for name in pipeline.TOKENIZERS]
found["tokens"] = all(
    one.ids(text)[0]
    == other(text, padding="max_length", max_length=one.length, truncation=True).input_ids
    for one, other in zip(ours, theirs) for text in texts
)
generation = drawn.generation(study.REFERENCE)
settings = drawn.settings(study.REFERENCE)
noise = drawn.WEIGHTS / "latents.pt"

def started(weights=drawn.WEIGHTS, generation=generation, noise=noise):
    engine = DiffusersEngine()
    engine.start(Start(weights, settings, generation, first_tokens=False, noise=noise))
    return engine

engine = started()
rows = drawn.prompts(24)

def answered(order):
    engine.submit([(number, rows[number], ()) for number in order])
    answers = {}
    while len(answers) < len(order):
        answers.update({number: answer.tobytes() for number, answer in engine.step().completed})
    return answers

plain, turned = answered(range(24)), answered(list(reversed(range(24))))
alone = answered([5])
found["bytes"] = sorted({len(one) for one in plain.values()})
found["company"] = plain == turned and alone[5] == plain[5]
found["different"] = len(set(plain.values()))
found["identity"] = engine.identity()
found["differences"] = list(engine.resolved().differences)

def refused(**changes):
    try:
        started(**changes)
    except UserError as error:
        return str(error)
    return ""

wider = generation.model_copy(update={"size": 64})
found["shape"] = refused(generation=wider)
(scratch / "damaged.pt").write_bytes(b"no tensor")
found["damaged"] = refused(noise=scratch / "damaged.pt")
found["empty"] = refused(weights=scratch)
for name in pipeline.NETWORKS:
    copied = scratch / f"without-{name}"
    shutil.copytree(drawn.WEIGHTS, copied)
    (path,) = pipeline.files(pipeline.home(copied), name)
    tensors = load_file(path)
    del tensors[sorted(tensors)[-1]]
    save_file(tensors, path, metadata={"format": "pt"})
    found[f"without-{name}"] = refused(weights=copied)

chance = numpy.random.default_rng(0)
mean, covariance = numpy.zeros(3), numpy.eye(3)

def scored(clip, shift):
    features = chance.standard_normal((64, 3)) + shift
    measured = Measured(numpy.full(64, clip), features, mean, covariance)
    return drawn.Drawn(measured, numpy.zeros((64, 12), numpy.uint8))

usual, other = scored(80.0, 1.0), scored(40.0, 9.0)
other.pictures[:3, 5] = 7
fid = study.values(usual.measured)[1]
allowed = {"CLIP_SCORE": (79.0, 81.0), "FID_SCORE": (0.9 * fid, 1.1 * fid)}
found["same"] = study.row(study.REFERENCE, usual, usual, usual, allowed)
found["other"] = study.row(study.Variant("x"), other, usual, usual, allowed)
variants = (study.REFERENCE, study.Variant("x", alike=True), study.Variant("y"))
found["spread"] = study.spread(
    {one.name: drawing for one, drawing in zip(variants, (usual, other, usual))}, variants, allowed
)
found["bounds"] = study.bounds(512)["CLIP_SCORE"]
try:
    study.bounds(7)
except UserError as error:
    found["no bounds"] = str(error)
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What one process says of everything: PyTorch takes long to import."""
    scratch = tmp_path_factory.mktemp("pictures")
    plan = planned("experiment=rehearsal-sdxl", "scenario=Offline")
    job = next(job for job in plan.jobs if job.step == "performance_run")
    done = subprocess.run(
        [interpreter(plan, job, scratch), "-c", SCRIPT, str(scratch)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said: dict[str, object] = json.loads(done.stdout.rpartition("FOUND")[2])
    return said


def test_captions_have_the_tokens_that_transformers_gives_them(found: dict[str, object]) -> None:
    assert found["tokens"] is True


def test_a_picture_does_not_depend_on_its_company(found: dict[str, object]) -> None:
    assert found["company"] is True
    assert found["different"] == 24 and found["bytes"] == [32 * 32 * 3]


def test_the_engine_says_what_it_is(found: dict[str, object]) -> None:
    said = found["identity"]
    assert isinstance(said, dict)
    assert (said["name"], said["device"], said["dtype"]) == ("diffusers", "cpu", "float32")
    assert found["differences"] == []


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("shape", "and pictures of 64 pixels start from (1, 4, 8, 8); give the latents of this"),
        ("damaged", "doesn't hold latents"),
        ("empty", "has no model_index.json, so no pipeline of diffusers"),
        ("without-text_encoder", "/text_encoder has "),
        ("without-text_encoder_2", "/text_encoder_2 has "),
        ("without-unet", "/unet has "),
        ("without-vae", "/vae has "),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    found: dict[str, object], what: str, words: str
) -> None:
    assert words in str(found[what])


def test_the_study_says_which_gates_hold_and_which_pictures_differ(
    found: dict[str, object],
) -> None:
    same, other = str(found["same"]), str(found["other"])
    assert same.endswith("| hold | none |") and same.count("+0.0000 % [+0.000, +0.000]") == 2
    assert other.endswith("| CLIP and FID missed | 3, by at most 7 |")
    assert "| 40.0000 [40.000, 40.000] | -50.0000 % [-50.000, -50.000] |" in other


def test_the_study_measures_the_spread_of_what_should_draw_alike(found: dict[str, object]) -> None:
    said = str(found["spread"])
    assert "(1 rows): CLIP lies within 50.00000 %, and its gate is 2.5 % wide" in said


def test_the_study_judges_by_the_benchmarks_own_bounds(found: dict[str, object]) -> None:
    assert found["bounds"] == [83.80745053, 84.14335213]
    assert "has no bounds for 7 samples; choose a length that has" in str(found["no bounds"])
