"""Scores the pictures of a whole accuracy log by caption (CLIP) and dataset (FID), streamed.

Arithmetic of text_to_image/tools/accuracy_coco.py (v5.1.1): pictures one by one in the log's order,
in float32; statistics in float64.
"""

import csv
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import linalg

from steps.base.errors import UserError
from steps.base.untrusted import Damaged, sha256_of
from steps.judge.scoring.clip import WEIGHTS, Clip, pixels_of
from steps.judge.scoring.inception import Inception
from steps.judge.scoring.whole import chosen
from steps.mlperf.loadgen_log import entries_of, sample_of

SIDE_PIXELS = 1024
"""What the round has; the open division may have pictures of another size."""

CHANNELS = 3
MOST_WORKERS = 32
"""With more threads, reading the log takes the time."""

SINGULAR_OFFSET = 1e-6
MOST_IMAGINARY = 1e-3
"""As in the reference: the term added to both diagonals if the root isn't finite, and the allowed
imaginary part of the root's diagonal.
"""

Matrix: TypeAlias = NDArray[numpy.float64]
Vector: TypeAlias = NDArray[numpy.float64]


@dataclass(frozen=True)
class Files:
    """The files that scoring needs. `clip` is a directory, the others are files. `captions`: one
    row per sample, in the dataset's order. `digests`: the known sha256, or its beginning, per name
    in `weights()`, and perhaps of the statistics. `side`: of the pictures, in pixels.
    """

    captions: Path
    statistics: Path
    clip: Path
    inception: Path
    digests: Mapping[str, str | None]
    side: int = SIDE_PIXELS

    def weights(self) -> Mapping[str, Path]:
        return {"clip": self.clip / WEIGHTS, "inception": self.inception}

    def require(self) -> None:
        """Raises UserError for a file that is absent or has another digest."""
        for path in (self.captions, self.statistics, *self.weights().values()):
            if not path.is_file():
                raise UserError(f"{path} isn't a file; name the one that the run used")
        for name, path in {**self.weights(), "statistics": self.statistics}.items():
            expected = self.digests.get(name)
            if expected is None:
                continue
            try:
                found = sha256_of(path)
            except Damaged as damage:
                raise UserError(f"{path}: {damage}") from damage
            if not found.startswith(expected):
                raise UserError(
                    f"{path} has sha256 {found[:12]}…, not {expected[:12]}…; get {name} again"
                )


@dataclass(frozen=True)
class Scores:
    """Both metrics over `samples` pictures."""

    clip: float
    fid: float
    samples: int

    def result(self) -> dict[str, str]:
        """Scores as the reference script names and prints them."""
        return {"FID_SCORE": f"{self.fid}", "CLIP_SCORE": f"{self.clip}"}

    def text(self) -> str:
        """accuracy.txt, without the hash of the log that its truncation adds."""
        return f"Accuracy Results: {self.result()}\n"


@dataclass(frozen=True)
class Gallery:
    """Keeps the pictures of some samples, for the reviewers of a submission."""

    folder: Path
    samples: Sequence[int]


@dataclass(frozen=True)
class _Picture:
    sample_index: int
    data: bytes


@dataclass(frozen=True)
class Measured:
    """What was found of each picture, in the log's order: `clip` has one number, `features` one
    row. `mean` and `covariance`: of the dataset's features."""

    clip: Vector
    features: Matrix
    mean: Vector
    covariance: Matrix

    def scores(self) -> Scores:
        """Raises UserError if FID isn't a number."""
        own = self.features.mean(axis=0), numpy.cov(self.features, rowvar=False)
        fid = frechet_distance((self.mean, self.covariance), own)
        return Scores(float(self.clip.mean()), fid, len(self.clip))


def score(
    log: Path,
    files: Files,
    *,
    gallery: Gallery | None = None,
    only: frozenset[int] | None = None,
) -> Scores:
    """`only`: the samples of a compliance test instead of the whole dataset.

    Raises UserError unless the log has a picture of every sample exactly once and all files for
    scoring exist.
    """
    return measure(log, files, gallery=gallery, only=only).scores()


def measure(
    log: Path,
    files: Files,
    *,
    gallery: Gallery | None = None,
    only: frozenset[int] | None = None,
) -> Measured:
    """As `score`, picture by picture."""
    files.require()
    captions = _captions(files.captions)
    mean, covariance = _statistics(files.statistics)
    clip, inception = Clip.read(files.clip), Inception.read(files.inception)
    if gallery is not None:
        _begin(gallery, captions)

    def judged(picture: _Picture) -> tuple[float, Vector]:
        image = Image.frombytes("RGB", (files.side, files.side), picture.data)
        if gallery is not None and picture.sample_index in gallery.samples:
            image.save(gallery.folder / f"{picture.sample_index}.png")
        features = inception.features(pixels_of(image).unsqueeze(0))[0]
        return clip.score(captions[picture.sample_index], image), features.double().numpy()

    pictures = _pictures(log, files.side)
    found = list(_in_turn(judged, chosen(pictures, len(captions), log, only)))
    features = numpy.stack([row for _, row in found])
    if len(features) < 2:
        raise UserError(f"{log} has {len(features)} picture, and FID needs at least two")
    if features.shape[1] != len(mean):
        raise UserError(
            f"{files.statistics} has {len(mean)} features, {files.inception} has "
            f"{features.shape[1]}; use val2014.npz of the round"
        )
    values = numpy.array([value for value, _ in found], dtype=numpy.float64)
    _require_numbers(values, files.clip)
    _require_numbers(features, files.inception)
    return Measured(values, features, mean, covariance)


def _require_numbers(values: Vector | Matrix, weights: Path) -> None:
    """Raises UserError: damaged weights of the right shape say nothing of any picture."""
    if not numpy.isfinite(values).all():
        raise UserError(
            f"{weights} finds values in pictures that aren't numbers: its weights are damaged; get "
            "it again"
        )


def frechet_distance(one: tuple[Matrix, Matrix], other: tuple[Matrix, Matrix]) -> float:
    """The squared distance of two normal distributions, given by mean and covariance. Raises
    UserError if it isn't a number, as with far too few samples.
    """
    (mean, covariance), (other_mean, other_covariance) = one, other
    root = linalg.sqrtm(covariance @ other_covariance)
    if not numpy.isfinite(root).all():
        offset = SINGULAR_OFFSET * numpy.eye(len(covariance))
        root = linalg.sqrtm((covariance + offset) @ (other_covariance + offset))
    diagonal = numpy.diagonal(root)
    if not numpy.isfinite(diagonal).all() or numpy.abs(diagonal.imag).max() > MOST_IMAGINARY:
        raise UserError(
            "FID isn't a number: the root of the covariances isn't real; are these the "
            "statistics of the dataset?"
        )
    apart = mean - other_mean
    traces = numpy.trace(covariance) + numpy.trace(other_covariance)
    return float(apart @ apart + traces - 2 * diagonal.real.sum())


def _in_turn(
    judged: Callable[[_Picture], tuple[float, Matrix]], pictures: Iterator[_Picture]
) -> Iterator[tuple[float, Matrix]]:
    """Scores in the log's order, with few pictures under way; each thread computes by itself."""
    count = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    pending: deque[Future[tuple[float, Matrix]]] = deque()
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for picture in pictures:
            pending.append(pool.submit(judged, picture))
            if len(pending) > 2 * count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _pictures(log: Path, side: int) -> Iterator[_Picture]:
    size = side * side * CHANNELS
    try:
        for number, text in entries_of(log):
            try:
                entry = json.loads(text)
                picture = _Picture(sample_of(entry), bytes.fromhex(entry["data"]))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                raise UserError(
                    f"{log}:{number}: not an answer of LoadGen's ({error}); use the untruncated log"
                ) from error
            if len(picture.data) != size:
                raise UserError(
                    f"{log}:{number}: sample {picture.sample_index} has {len(picture.data)} bytes, "
                    f"a picture of {side} x {side} has {size}"
                )
            yield picture
    except Damaged as damage:
        where = f"{log}:{damage.line}" if damage.line else str(log)
        raise UserError(f"{where}: {damage}; use the untruncated log") from damage


def _captions(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            found = [row["caption"] for row in csv.DictReader(stream, delimiter="\t")]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(
            f"{path} has no column of captions ({error}); use captions_source.tsv"
        ) from error
    if not found or not all(found):
        raise UserError(f"{path} has rows without a caption; use captions_source.tsv")
    return found


def _statistics(path: Path) -> tuple[Matrix, Matrix]:
    try:
        with numpy.load(path, allow_pickle=False) as stored:
            mean, covariance = (
                numpy.asarray(stored[name], dtype=numpy.float64) for name in ("mu", "sigma")
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, IndexError) as error:
        raise UserError(f"{path} holds no mu and sigma ({error}); use val2014.npz") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(f"{path}: mu and sigma are of different sizes; use val2014.npz")
    if not (numpy.isfinite(mean).all() and numpy.isfinite(covariance).all()):
        raise UserError(f"{path} holds numbers that aren't finite; use val2014.npz")
    return mean, covariance


def _begin(gallery: Gallery, captions: Sequence[str]) -> None:
    gallery.folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{index}  {captions[index]}\n" for index in gallery.samples if index < len(captions)]
    (gallery.folder / "captions.txt").write_text("".join(lines), encoding="utf-8")
