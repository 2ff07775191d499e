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
import json, sys
from pathlib import Path
from steps.judge.scoring.narrow import study
from steps.prepare import captions, pipeline
from steps.prepare.rehearsal.shapes import world
from steps.run.engines.diffusers_engine import DiffusersEngine
from steps.run.engines.engine import Start
from steps.base.errors import UserError
from steps.config.generation import ImageGeneration
from transformers import CLIPTokenizer

scratch = Path(sys.argv[1])
found = {}
home = pipeline.home(study.WEIGHTS)
texts = [scene.caption for scene in world.scenes()[::97]] + ["Zebras, 3 of them!", "an It's  x"]
ours = [captions.Words.read(home / name) for name in pipeline.TOKENIZERS]
theirs = [CLIPTokenizer.from_pretrained(home / name) for name in pipeline.TOKENIZERS]
found["tokens"] = all(
    one.ids(text)[0]
    == other(text, padding="max_length", max_length=one.length, truncation=True).input_ids
    for one, other in zip(ours, theirs) for text in texts
)
generation = ImageGeneration(
    steps=20, guidance_scale=8, size=32, negative_prompt=study.tokenizer.NEGATIVE
)
settings = study._settings(study.REFERENCE)
noise = study.WEIGHTS / "latents.pt"

def started(weights=study.WEIGHTS, generation=generation, noise=noise):
    engine = DiffusersEngine()
    engine.start(Start(weights, settings, generation, first_tokens=False, noise=noise))
    return engine

engine = started()
rows = [[t for one in ours for t in one.ids(scene.caption)[0]] for scene in world.evaluation()[:24]]

def drawn(order):
    engine.submit([(number, rows[number], ()) for number in order])
    answers = {}
    while len(answers) < len(order):
        answers.update({number: answer.tobytes() for number, answer in engine.step().completed})
    return answers

plain, turned, alone = drawn(range(24)), drawn(list(reversed(range(24)))), drawn([5])
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
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    found: dict[str, object], what: str, words: str
) -> None:
    assert words in str(found[what])
