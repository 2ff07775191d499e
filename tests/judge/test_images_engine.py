"""CLIP and FID of whole logs, in an environment with PyTorch.

What is expected was printed by the reference script of v5.1.1 for the same networks, pictures and
statistics (open_clip 3.3.0, torchvision 0.28.0, November 2026).
"""

import ast
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import PIL
import pytest

from steps.base.errors import UserError
from steps.base.locks import packages
from steps.judge.scoring.whole import chosen, samples_of
from steps.mlperf.loadgen_log import Answer
from tests.conftest import ROOT, planned
from tests.interpreter import interpreter

pytestmark = pytest.mark.engine

REFERENCE = {"FID_SCORE": 5.944533987842406, "CLIP_SCORE": 15.732931877885546}
LIMIT_S = 240.0
SCRIPT = """
import json, sys
from pathlib import Path
import numpy
from steps.base.errors import UserError
from steps.base.locks import packages
from steps.judge.scoring.images import Files, Gallery, frechet_distance, score
for name, home, only, digests in json.load(sys.stdin):
    home = Path(home)
    names = ("captions.tsv", "statistics.npz", "clip", "inception.pth")
    files = Files(*(home / name for name in names), digests)
    gallery = Gallery(home / "images", [3, 5])
    chosen = None if only is None else frozenset(only)
    try:
        said = score(home / "log.json", files, gallery=gallery, only=chosen).text()
    except UserError as error:
        said = f"refused: {error}"
    print(json.dumps([name, said]), flush=True)
one, other = numpy.array([1.0, 2.0, 0.5]), numpy.array([0.0, 2.5, 1.0])
turn, _ = numpy.linalg.qr(numpy.arange(9.0).reshape(3, 3) ** 2 + numpy.eye(3))
wide, narrow = (turn @ numpy.diag(d) @ turn.T for d in ([4.0, 9.0, 1.0], [1.0, 4.0, 16.0]))
apart, same = (frechet_distance((one, wide), of) for of in ((other, narrow), (one, wide)))
print(json.dumps(["distances", f"{apart} {same}"]))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the networks' module writes."""
    return tmp_path_factory.mktemp("images") / "home"


@pytest.fixture(scope="module")
def said(home: Path) -> dict[str, str]:
    """What is said of every case, by one process where PyTorch is: it takes long to import.

    That is the environment of compression, which other tests need anyway, with these tests' Pillow:
    what envs/images.lock lists, as another test holds.
    """
    scratch = home.parent
    plan = planned("precision=fp8")
    job = next(job for job in plan.jobs if job.step == "quantize")
    executable = interpreter(plan, job, scratch)
    packages = scratch / "packages"
    packages.mkdir()
    for name in ("PIL", "pillow.libs"):
        (packages / name).symlink_to(Path(PIL.__file__).parent.parent / name)
    path = os.pathsep.join(map(str, (packages, ROOT)))

    def run(*arguments: str, given: str = "") -> str:
        done = subprocess.run(
            [executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            input=given,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "tests.image_networks", str(home))
    cases: list[tuple[str, str, list[int] | None, dict[str, str]]] = [
        ("whole", str(home), None, {}),
        ("some", str(home), [1, 2, 3], {}),
        ("none", str(home), [1, 99], {}),
    ]
    for fault, change in FAULTS.items():
        damaged = scratch / fault
        shutil.copytree(home, damaged, copy_function=os.link)
        change(damaged)
        digests = {"inception": "0123abcd"} if fault == "digest" else {}
        cases.append((fault, str(damaged), None, digests))
    lines = run("-c", SCRIPT, given=json.dumps(cases)).splitlines()
    return dict(json.loads(line) for line in lines)


def test_both_scores_are_the_reference_scripts(said: dict[str, str], home: Path) -> None:
    text = said["whole"].strip()
    assert text.startswith("Accuracy Results: {")
    printed = ast.literal_eval(text.removeprefix("Accuracy Results: "))
    assert {name: float(value) for name, value in printed.items()} == pytest.approx(
        REFERENCE, rel=1e-6
    )
    kept = sorted(path.name for path in (home / "images").iterdir())
    assert kept == ["3.png", "5.png", "captions.txt"]
    captions = (home / "images/captions.txt").read_text(encoding="utf-8")
    assert captions == "3  a red dog\n5  a city boat\n"


def test_a_test_is_scored_on_its_own_samples(said: dict[str, str]) -> None:
    assert said["some"].startswith("Accuracy Results")
    assert "sample 99 is not" in said["none"]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("digest", "has sha256"),
        ("no clip", "isn't a file"),
        ("clip without a tensor", "tensors are missing"),
        ("clip damaged", "doesn't hold CLIP"),
        ("clip of no numbers", "clip finds values in pictures that aren't numbers"),
        ("clip of other words", "ids up to 50000, and the model beside it knows 49408 words"),
        ("clip of other sizes", "doesn't hold CLIP"),
        ("inception damaged", "doesn't hold Inception-v3"),
        ("inception of no numbers", "inception.pth finds values in pictures that aren't numbers"),
        ("inception of another network", "doesn't hold Inception-v3"),
        ("statistics damaged", "holds no mu and sigma"),
        ("statistics of another width", "use val2014.npz"),
        ("captions", "column of captions"),
        ("log cut", "use the untruncated log"),
        ("small picture", "bytes, a picture of 1024 x 1024 has"),
        ("twice", "is answered twice"),
    ],
)
def test_what_can_not_be_scored_is_refused(said: dict[str, str], fault: str, says: str) -> None:
    assert said[fault].startswith("refused: ") and says in said[fault], said[fault]
    assert "\n" not in said[fault]


def _put(path: Path, data: bytes) -> None:
    path.unlink()  # it is a link to what other tests read
    path.write_bytes(data)


def _without_a_tensor(home: Path) -> None:
    path = home / "clip/model.safetensors"
    _put(path, path.read_bytes().replace(b"text_projection", b"text_projectiom", 1))


def _log(home: Path, change: Callable[[bytes], bytes]) -> None:
    path = home / "log.json"
    _put(path, change(path.read_bytes()))


def _not_numbers(home: Path) -> None:
    path = home / "clip/model.safetensors"
    _put(path, path.read_bytes()[:-64] + 16 * b"\x00\x00\xc0\x7f")  # ends with a projection


def _other_words(home: Path) -> None:
    path = home / "clip/tokenizer.json"
    _put(path, path.read_bytes().replace(b"2368", b"50000"))


def _other_sizes(home: Path) -> None:
    path = home / "clip/config.json"
    _put(path, path.read_bytes().replace(b'"patch_size": 8', b'"patch_size": 16'))


def _other_width(home: Path) -> None:
    import numpy

    (home / "statistics.npz").unlink()
    numpy.savez(home / "statistics.npz", mu=numpy.zeros(3), sigma=numpy.eye(3))


FAULTS: dict[str, Callable[[Path], object]] = {
    "digest": lambda home: None,
    "no clip": lambda home: (home / "clip/model.safetensors").unlink(),
    "clip without a tensor": _without_a_tensor,
    "clip damaged": lambda home: _put(home / "clip/model.safetensors", b"none"),
    "clip of no numbers": _not_numbers,
    "clip of other words": _other_words,
    "clip of other sizes": _other_sizes,
    "inception damaged": lambda home: _put(home / "inception.pth", b"none"),
    "inception of no numbers": lambda home: (home / "broken.pth").replace(home / "inception.pth"),
    "inception of another network": lambda home: _put(
        home / "inception.pth", (home / "clip/model.safetensors").read_bytes()
    ),
    "statistics damaged": lambda home: _put(home / "statistics.npz", b"PK none"),
    "statistics of another width": _other_width,
    "captions": lambda home: _put(home / "captions.tsv", b"id\ttext\n0\ta cat\n"),
    "log cut": lambda home: _log(home, lambda data: data[:-2_000_000]),
    "small picture": lambda home: _log(
        home, lambda data: data.replace(b' "data" : "', b' "data" : "00', 1)
    ),
    "twice": lambda home: _log(
        home, lambda data: data.replace(b'"qsl_idx" : 13', b'"qsl_idx" : 12')
    ),
}


def test_the_distance_of_two_normal_distributions(said: dict[str, str]) -> None:
    """Of covariances with the same axes: the distance of the means and of the deviations."""
    apart, same = map(float, said["distances"].split())
    assert apart == pytest.approx(1.5 + (2 - 1) ** 2 + (3 - 2) ** 2 + (1 - 4) ** 2)
    assert same == pytest.approx(0, abs=1e-9)


def test_the_lock_is_of_what_these_tests_ran_with() -> None:
    """What scores, that is: the environment has diffusers and LoadGen too."""
    images, compress, analysis = (
        packages(ROOT / f"envs/{name}.lock") for name in ("images", "compress", "analysis")
    )
    used = ("torch", "transformers", "tokenizers", "numpy", "scipy", "safetensors")
    assert {name: images[name] for name in used} == {name: compress[name] for name in used}
    assert images["pillow"] == analysis["pillow"]


def answer(index: int) -> Answer:
    return Answer(index, [1], None, 1)


def test_the_first_answer_to_a_chosen_sample_counts(tmp_path: Path) -> None:
    answers = [answer(n) for n in (4, 2, 4, 1, 0)]
    found = list(chosen(answers, 5, tmp_path, frozenset((4, 1))))
    assert [one.sample_index for one in found] == [4, 1]
    assert found[0] is answers[0]
    with pytest.raises(UserError, match="sample 3 is not"):
        list(chosen(answers, 5, tmp_path, frozenset((4, 3))))


def test_samples_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('[\n{ "qsl_idx" : 3, "data" : "00" },\n{ "qsl_idx" : 3, "data" : "" }\n]\n')
    assert samples_of(log) == {3}
    for text in ("[\n]\n", '[\n{ "data" : "00" }\n]\n', '[\n{ "qsl_idx" : 3'):
        log.write_text(text)
        with pytest.raises(UserError, match="log of the test's run"):
            samples_of(log)
