"""A site without the internet: weights and prompts come from a mirror on this machine, in the forms
of a hub and of MLCommons' storage, and `./reproduce` makes a tree of them.

Weights and prompts are the rehearsal's, small and public; nobody states the weights' revision.
"""

import gzip
import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steps.base.record import Manifest
from steps.prepare.rehearsal import dataset
from tests.conftest import ROOT, copy_project, edit, reproduce
from tests.file_server import Files, serving

pytestmark = pytest.mark.e2e

LIMIT_S = 1800
MODEL = ROOT / "steps/prepare/rehearsal/model"
REPOSITORY, COMMIT = "acme/notes", "0123456789abcdef" * 2 + "01234567"
EVALUATION, CALIBRATION = "notes.sampled_1024.pkl", "notes.calibration_1000.pkl"
ASKED = ("scenario=Offline", "precision=fp8")
CELL = "rehearsal-cpu/rehearsal/none/fp8/Offline"

WEIGHTS = f"""\
  source: huggingface
  repository: {REPOSITORY}
  revision: null
  fetch: ${{fetch}}
"""
PROMPTS = """\
  recipe: open-orca
  path: null
  evaluation: {{uri: "{url}/metadata/notes.uri", names: [{evaluation}], md5: "{md5}", sha256: null,
    rows: 1024}}
  calibration: {{uri: "{url}/metadata/notes.uri", names: [{calibration}], md5: null, sha256: null,
    rows: 1000}}
  fetch: ${{fetch}}
"""


@pytest.fixture(scope="module")
def mirror() -> Iterator[Files]:
    with serving(Files()) as files:
        fill_hub(files)
        yield files


def fill_hub(files: Files) -> None:
    """The weights' repository, whose `main` is at a commit."""
    entries = []
    for path in sorted(MODEL.iterdir()):
        if path.name in ("manifest.json", "reference.json"):
            continue
        data = path.read_bytes()
        blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path.name, "size": len(data), "oid": blob}
        if path.suffix == ".safetensors":
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
        entries.append(entry)
        files.bodies[f"/{REPOSITORY}/resolve/{COMMIT}/{path.name}"] = data
    said = json.dumps({"sha": COMMIT, "id": REPOSITORY}).encode()
    files.bodies[f"/api/models/{REPOSITORY}/tree/{COMMIT}"] = json.dumps(entries).encode()
    files.bodies[f"/api/models/{REPOSITORY}/revision/main"] = said


def fill_storage(files: Files, packed: dict[str, bytes]) -> None:
    """The prompts, gzipped, as MLCommons' storage lists them."""
    files.bodies["/metadata/notes.uri"] = f"{files.url}/held".encode()
    lines = []
    for name, data in packed.items():
        files.bodies[f"/held/{name}.gz"] = data
        lines.append(f"{hashlib.md5(data).hexdigest()}  ./{name}.gz\n")
    files.bodies["/metadata/notes.md5"] = "".join(lines).encode()


def prompts() -> dict[str, bytes]:
    return {
        EVALUATION: pickle.dumps(dataset.evaluation(1024), protocol=4),
        CALIBRATION: pickle.dumps(dataset.calibration(1000), protocol=4),
    }


@pytest.fixture
def clone(mirror: Files, tmp_path: Path) -> Path:
    """A checkout whose rehearsal comes from the mirror."""
    made = prompts()
    fill_storage(mirror, {name: gzip.compress(data, 1) for name, data in made.items()})
    home = copy_project(tmp_path / "clone")
    (home / ".envs").symlink_to(ROOT / ".envs")
    benchmark = home / "conf/benchmark/rehearsal.yaml"
    md5 = hashlib.md5(made[EVALUATION]).hexdigest()
    text = PROMPTS.format(url=mirror.url, evaluation=EVALUATION, calibration=CALIBRATION, md5=md5)
    edit(benchmark, "  embedded: steps/prepare/rehearsal/model\n", WEIGHTS)
    edit(benchmark, "  recipe: rehearsal\n", text)
    return home


def run(clone: Path, mirror: Files, *more: str) -> tuple[int, str]:
    return reproduce(
        clone,
        *ASKED,
        f"fetch.endpoint={mirror.url}",
        *more,
        limit_s=LIMIT_S,
        environment={"NO_PROXY": "127.0.0.1", "HF_TOKEN": ""},
    )


def test_fetched_checked_quantized_measured_scored_and_packaged(clone: Path, mirror: Files) -> None:
    status, text = run(clone, mirror)
    assert status == 0, text
    assert f"{REPOSITORY}: main is {COMMIT}, kept in results/revisions.json" in text
    made = {
        step: Manifest.read(next((clone / "results/artifacts" / step).rglob("manifest.json")))
        for step in ("model", "dataset", "quantize")
    }
    assert made["model"].result["revision"] == COMMIT
    digest = hashlib.sha256(prompts()[EVALUATION]).hexdigest()
    assert made["dataset"].result["evaluation"]["sha256"] == digest
    assert made["quantize"].result["format"] == "fp8"
    summary = json.loads((clone / "results/rehearsal/report/summary.json").read_text())
    (cell,) = summary["cells"]
    assert cell["value"] > 0 and cell["scores"]["exact_match"] > 90
    tree = clone / "results/rehearsal/submission/open/Reprise/results"
    assert list(tree.glob("*/*/Offline/performance/run_1/mlperf_log_detail.txt"))
    asked = len(mirror.requests)
    status, text = run(clone, mirror)
    assert (status, "nothing to do" in text) == (0, True), text
    assert len(mirror.requests) == asked, "what is here is asked of nobody"


class Foreign:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("opened-it"),)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("another file", f"{EVALUATION}.gz isn't the evaluation file of open-orca: its md5 is"),
        ("cut off", f"{EVALUATION}.gz is a gzip that is cut off or damaged"),
        ("foreign pickle", "which no table is made of"),
        ("another than listed", "isn't the expected file: its md5 digest is"),
    ],
)
def test_a_mirror_that_has_something_else_is_refused_before_anything_is_opened(
    clone: Path, mirror: Files, wrong: str, says: str
) -> None:
    made = prompts()
    packed = {name: gzip.compress(data, 1) for name, data in made.items()}
    more: tuple[str, ...] = ()
    if wrong == "another file":
        packed[EVALUATION] = gzip.compress(made[CALIBRATION], 1)
    elif wrong == "cut off":
        packed[EVALUATION] = packed[EVALUATION][:-20]
    elif wrong == "foreign pickle":
        packed[EVALUATION] = gzip.compress(pickle.dumps(Foreign()))
        more = ("benchmark.dataset.evaluation.md5=null",)  # its digest is what the mirror says
    fill_storage(mirror, packed)
    if wrong == "another than listed":
        mirror.script[f"/held/{EVALUATION}.gz"] = ["wrong"]
    status, text = run(clone, mirror, *more, "--", "--until", "dataset")
    assert status == 1 and says in text, text
    assert len([line for line in text.splitlines() if line.startswith("error:")]) == 1, text
    assert not list((clone / "results/artifacts/dataset").rglob("manifest.json"))
    assert not list(clone.rglob("opened-it")) and not Path("opened-it").exists()
    assert not list((clone / "results").glob("rehearsal/runs/*"))
