"""RULER's sets: by a stand-in for its generator, of the same places and arguments, or as files."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from steps.base.record import Manifest, publish
from steps.plan.registry import STEPS
from tests import running
from tests.conftest import ROOT, planned

GENERATOR = """
import argparse, json, os, pathlib, random
parser = argparse.ArgumentParser()
for name in ("save_dir", "save_name", "subset", "tokenizer_path", "tokenizer_type", "template",
             "type_haystack", "type_needle_k", "type_needle_v"):
    parser.add_argument(f"--{name}")
for name in ("max_seq_length", "tokens_to_generate", "num_samples", "random_seed", "num_needle_k",
             "num_needle_v", "num_needle_q"):
    parser.add_argument(f"--{name}", type=int)
given = parser.parse_args()
assert given.type_needle_v == "uuids" and given.tokenizer_type == "hf"
assert pathlib.Path(os.environ["NLTK_DATA"], "tokenizers/punkt_tab").is_dir()
essay = json.load(open("json/PaulGrahamEssays.json"))["text"]
chance = random.Random(given.random_seed)
out = pathlib.Path(given.save_dir, given.save_name, f"{given.subset}.jsonl")
out.parent.mkdir()
with out.open("w") as stream:
    for number in range(given.num_samples - SHORT):
        values = [f"{chance.getrandbits(64):x}" for _ in range(given.num_needle_v)]
        text = given.template.format(type_needle_v="uuids", context=essay + " ".join(values),
                                     query="red-fox")
        sample = {"input": text, "outputs": values, "length": given.max_seq_length}
        stream.write(json.dumps(sample) + "\\n")
"""

NAMES = ("niah_multivalue-64-2.jsonl", "niah_multivalue-64-3.jsonl")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A repository with the generator, a haystack, NLTK's data and a model."""
    repository(tmp_path / "ruler")
    (tmp_path / "essays.json").write_text(json.dumps({"text": "Once upon a time. "}))
    (tmp_path / "nltk/tokenizers/punkt_tab").mkdir(parents=True)
    with publish(tmp_path / "model", step="model", config={}, inputs={}, code="") as workspace:
        (workspace.directory / "tokenizer.json").write_text("{}")
    return tmp_path


def repository(path: Path, short: int = 0) -> str:
    """Returns the commit."""
    data = path / "scripts/data"
    (data / "synthetic/json").mkdir(parents=True, exist_ok=True)
    (data / "template.py").write_text('Templates = {"chat": "<u>{task_template}<a>"}\n')
    task = {"tokens_to_generate": 8, "template": "{context} What of {query}?"}
    task["answer_prefix"] = " They are"
    (data / "synthetic/constants.py").write_text(f"TASKS = {{'niah': {task!r}}}\n")
    (data / "synthetic/niah.py").write_text(GENERATOR.replace("SHORT", str(short)))
    who = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "x")):
        subprocess.run(["git", "-C", path, *command], check=True, capture_output=True)
    head = ["git", "-C", str(path), "rev-parse", "HEAD"]
    return subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()


def settings(home: Path, **changes: Any) -> dict[str, Any]:
    head = ["git", "-C", str(home / "ruler"), "rev-parse", "HEAD"]
    commit = subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()
    return {
        "generator": str(home / "ruler"),
        "commit": commit,
        "lengths": [64],
        "needles": [2, 3],
        "samples": 5,
        "values": "uuids",
        "template": "chat",
        "seed": 42,
        "haystack": {"path": str(home / "essays.json"), "sha256": None},
        "nltk_data": str(home / "nltk"),
        "directory": None,
        "digests": {},
        "processes": 2,
        "limit_s": 60.0,
        "offline": True,
        **changes,
    }


def step(home: Path, chosen: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    inputs = {"model": home / "model/manifest.json"}
    return subprocess.run(
        running.command("training_sets", chosen, inputs, home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def refused(done: subprocess.CompletedProcess[str], home: Path, words: str) -> None:
    assert done.returncode == 1 and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (home / "out").exists()


def test_sets_are_made_by_the_generator_at_its_commit(home: Path) -> None:
    done = step(home, settings(home))
    assert done.returncode == 0, done.stderr
    made = Manifest.read(home / "out/manifest.json")
    assert set(made.files) == set(NAMES)
    assert made.result["commit"] == settings(home)["commit"]
    essays = (home / "essays.json").read_bytes()
    assert made.result["haystack_sha256"] == hashlib.sha256(essays).hexdigest()
    lines = made.file(NAMES[1]).read_text().splitlines()
    assert len(lines) == 5
    first = json.loads(lines[0])
    assert len(first["outputs"]) == 3
    assert first["input"].startswith("<u>Once") and first["input"].endswith("?<a> They are")


def test_sets_of_a_directory_need_a_digest_each(home: Path) -> None:
    assert step(home, settings(home)).returncode == 0
    (home / "sets").mkdir()
    digests = {}
    for name in NAMES:
        data = (home / "out" / name).read_bytes()
        (home / "sets" / name).write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    again = home / "again"
    again.mkdir()
    (again / "model").symlink_to(home / "model")
    taken = settings(home, directory=str(home / "sets"))
    refused(step(again, taken), again, f"{{{NAMES[0]}: {digests[NAMES[0]]}, {NAMES[1]}: ")
    wrong = {**taken, "digests": {**digests, NAMES[1]: "0" * 64}}
    refused(step(again, wrong), again, f"{NAMES[1]} isn't the file whose digest is given")
    done = step(again, {**taken, "digests": digests})
    assert done.returncode == 0, done.stderr
    assert Manifest.read(again / "out/manifest.json").result == {"made": "elsewhere"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"commit": "0" * 40}, "at 0000000000000000000000000000000000000000 can't be had"),
        ({"template": "other"}, "the template other of RULER can't be had: KeyError"),
        ({"values": "words"}, "RULER's generator for niah_multivalue-64-2 can't be had: Assertion"),
        ({"nltk_data": "/nowhere"}, "/nowhere has no tokenizers/punkt_tab of NLTK"),
        ({"nltk_data": None}, "offline=true, and RULER finds sentences by NLTK's data"),
        ({"haystack": {"path": None, "sha256": None}}, "offline=true, and RULER downloads the"),
        ({"haystack": {"path": "/nowhere", "sha256": None}}, "/nowhere isn't a file"),
        ({"generator": "https://example.com/x"}, "offline=true, and https://example.com/x comes"),
        ({"directory": "/nowhere"}, "/nowhere/niah_multivalue-64-2.jsonl is missing"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(
    home: Path, changes: dict[str, Any], words: str
) -> None:
    refused(step(home, settings(home, **changes)), home, words)


def test_a_haystack_of_another_digest_is_refused(home: Path) -> None:
    haystack = {"path": str(home / "essays.json"), "sha256": "0" * 64}
    refused(step(home, settings(home, haystack=haystack)), home, "the haystack's sha256 is ")


def test_a_set_with_too_few_samples_is_refused(home: Path) -> None:
    repository(home / "ruler", short=1)
    words = "niah_multivalue-64-2.jsonl has 4 samples, and 5 are wanted of each set"
    refused(step(home, settings(home)), home, words)


def test_amds_plan_makes_nine_sets_and_trains_on_them() -> None:
    jobs = planned("experiment=amd-v5.1", "compression=depth-pruned-33-finetuned").jobs
    (sets,) = (job for job in jobs if job.step == "training_sets")
    (trained,) = (job for job in jobs if job.step == "finetune")
    assert sets.limitation is None and trained.inputs["sets"] == sets.output
    assert "files" not in json.loads(trained.config)["data"]
    config = STEPS["training_sets"].config.model_validate_json(sets.config)
    assert len(config.names) == 9  # type: ignore[attr-defined]
    assert sets.environment.startswith(".envs/ruler-")
