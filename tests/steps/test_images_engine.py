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

from steps.errors import UserError
from steps.loadgen_log import Answer
from steps.plan import make
from steps.scoring.whole import chosen, samples_of
from tests.conftest import ROOT
from tests.interpreter import interpreter

pytestmark = pytest.mark.engine

REFERENCE = {"FID_SCORE": 5.944533987842406, "CLIP_SCORE": 15.732931877885546}
LIMIT_S = 240.0
SCRIPT = """
import json, sys
from pathlib import Path
from steps.errors import UserError
from steps.scoring.images import Files, Gallery, score
home, kept, only, digests = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
files = Files(
    home / "captions.tsv", home / "statistics.npz", home / "clip", home / "inception.pth", digests
)
try:
    found = score(
        home / "log.json",
        files,
        gallery=Gallery(home / "images", kept),
        only=None if only is None else frozenset(only),
    )
    print(found.text())
except UserError as error:
    print("refused:", error)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs a program where PyTorch is: what it prints.

    That is the environment of compression, which other tests need anyway, with these tests' Pillow:
    what envs/images.lock lists, as another test holds.
    """
    scratch = tmp_path_factory.mktemp("images")
    plan = make(ROOT, ["precision=fp8"])
    job = next(job for job in plan.jobs if job.step == "quantize")
    executable = interpreter(plan, job, scratch)
    packages = scratch / "packages"
    packages.mkdir()
    for name in ("PIL", "pillow.libs"):
        (packages / name).symlink_to(Path(PIL.__file__).parent.parent / name)
    path = os.pathsep.join(map(str, (packages, ROOT)))

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def made(python: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made") / "home"
    python("-m", "tests.image_networks", str(home))
    return home


def scored(
    python: Callable[..., str],
    home: Path,
    only: list[int] | None = None,
    digests: dict[str, str] | None = None,
) -> str:
    given = (json.dumps(value) for value in ([3, 5], only, digests or {}))
    return python("-c", SCRIPT, str(home), *given).strip()


def test_both_scores_are_the_reference_scripts(python: Callable[..., str], made: Path) -> None:
    text = scored(python, made)
    assert text.startswith("Accuracy Results: {")
    printed = ast.literal_eval(text.removeprefix("Accuracy Results: "))
    assert {name: float(value) for name, value in printed.items()} == pytest.approx(
        REFERENCE, rel=1e-6
    )
    kept = sorted(path.name for path in (made / "images").iterdir())
    assert kept == ["3.png", "5.png", "captions.txt"]
    captions = (made / "images/captions.txt").read_text(encoding="utf-8")
    assert captions == "3  a red dog\n5  a city boat\n"


def test_a_test_is_scored_on_its_own_samples(python: Callable[..., str], made: Path) -> None:
    assert scored(python, made, only=[1, 2, 3]).startswith("Accuracy Results")
    assert "sample 99 is not" in scored(python, made, only=[1, 99])


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("digest", "has sha256"),
        ("no clip", "no file"),
        ("clip without a tensor", "tensors are missing"),
        ("clip damaged", "doesn't hold CLIP"),
        ("inception damaged", "doesn't hold Inception-v3"),
        ("inception of another network", "doesn't hold Inception-v3"),
        ("statistics damaged", "holds no mu and sigma"),
        ("statistics of another width", "use val2014.npz"),
        ("captions", "column of captions"),
        ("log cut", "use the untruncated log"),
        ("small picture", "bytes, a picture of 1024 x 1024 has"),
        ("twice", "is answered twice"),
    ],
)
def test_what_can_not_be_scored_is_refused(
    python: Callable[..., str], made: Path, tmp_path: Path, fault: str, says: str
) -> None:
    home = tmp_path / "home"
    shutil.copytree(made, home, copy_function=os.link)
    digests = {"inception": "0123abcd"} if fault == "digest" else {}
    FAULTS[fault](home)
    said = scored(python, home, digests=digests)
    assert said.startswith("refused: ") and says in said and "\n" not in said, said


def _put(path: Path, data: bytes) -> None:
    path.unlink()  # it is a link to what other tests read
    path.write_bytes(data)


def _without_a_tensor(home: Path) -> None:
    path = home / "clip/model.safetensors"
    _put(path, path.read_bytes().replace(b"text_projection", b"text_projectiom", 1))


def _log(home: Path, change: Callable[[bytes], bytes]) -> None:
    path = home / "log.json"
    _put(path, change(path.read_bytes()))


def _other_width(home: Path) -> None:
    import numpy

    (home / "statistics.npz").unlink()
    numpy.savez(home / "statistics.npz", mu=numpy.zeros(3), sigma=numpy.eye(3))


FAULTS: dict[str, Callable[[Path], object]] = {
    "digest": lambda home: None,
    "no clip": lambda home: (home / "clip/model.safetensors").unlink(),
    "clip without a tensor": _without_a_tensor,
    "clip damaged": lambda home: _put(home / "clip/model.safetensors", b"none"),
    "inception damaged": lambda home: _put(home / "inception.pth", b"none"),
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


DISTANCES = """
import numpy
from steps.scoring.images import frechet_distance
one, other = numpy.array([1.0, 2.0, 0.5]), numpy.array([0.0, 2.5, 1.0])
turn, _ = numpy.linalg.qr(numpy.arange(9.0).reshape(3, 3) ** 2 + numpy.eye(3))
wide, narrow = (turn @ numpy.diag(d) @ turn.T for d in ([4.0, 9.0, 1.0], [1.0, 4.0, 16.0]))
print(frechet_distance((one, wide), (other, narrow)), frechet_distance((one, wide), (one, wide)))
"""


def test_the_distance_of_two_normal_distributions(python: Callable[..., str]) -> None:
    """Of covariances with the same axes: the distance of the means and of the deviations."""
    apart, same = map(float, python("-c", DISTANCES).split())
    assert apart == pytest.approx(1.5 + (2 - 1) ** 2 + (3 - 2) ** 2 + (1 - 4) ** 2)
    assert same == pytest.approx(0, abs=1e-9)


def test_the_lock_is_of_what_these_tests_ran_with() -> None:
    images, compress, analysis = (
        (ROOT / f"envs/{name}.lock").read_text(encoding="utf-8").split()
        for name in ("images", "compress", "analysis")
    )
    assert set(images) - set(compress) == {line for line in analysis if line.startswith("pillow=")}


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
