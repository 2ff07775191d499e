"""The program of `./reproduce score`, in the environment that can score the benchmark's answers."""

import argparse
import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any

from steps import ROOT
from steps.base.console import plain_output
from steps.base.errors import UserError, shown
from steps.base.record import require_writable, unwritable, write_atomically
from steps.judge.scoring.command import IMAGES
from steps.judge.scoring.forms import FORMS
from steps.judge.scoring.whole import samples_of
from steps.mlperf.rounds import load, names, read_yaml
from steps.prepare.samples import UNPICKLING

DIGESTS = {"inception": "6726825d"}
"""The beginning of the weights' sha256, from the name of pytorch-fid's file."""

CONF = ROOT / "conf"


def main(arguments: list[str]) -> int:
    """Exit status 0: everything was scored. Raises UserError otherwise."""
    parser = argparse.ArgumentParser(
        prog="./reproduce score",
        description="Score a full mlperf_log_accuracy.json as the benchmark's reference script "
        "does and write accuracy.txt (without its hash, which the truncation adds).",
    )
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    for name in sorted(FORMS):
        _text_arguments(_benchmark(benchmarks, name))
    _image_arguments(_benchmark(benchmarks, IMAGES))
    chosen = parser.parse_args(arguments)
    only = None if chosen.samples_of is None else samples_of(chosen.samples_of)
    require_writable(chosen.output)
    text, result = (_images if chosen.benchmark == IMAGES else _texts)(chosen, only)
    print(result)  # first: hours went into it
    try:
        write_atomically(chosen.output, text)
    except OSError as error:
        raise unwritable(chosen.output, error) from error
    return 0


def _benchmark(benchmarks: Any, name: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = benchmarks.add_parser(name)
    parser.add_argument("--log", type=Path, required=True, help="untruncated accuracy log")
    parser.add_argument("--output", type=Path, required=True, help="accuracy.txt to write")
    parser.add_argument(
        "--samples-of",
        type=Path,
        metavar="LOG",
        help="score only the samples that this log of a TEST01 run answers",
    )
    return parser


def _text_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Answers are int32 or int64 tokens, as the reference implementations log them."
    )
    parser.add_argument(
        "--dataset", type=Path, required=True, help="the reference's table (.pkl, .json)"
    )
    parser.add_argument(
        "--dataset-sha256",
        metavar="HEX",
        help="open a .pkl that isn't a published one, if it has this digest; opening it runs the "
        "code in it",
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="the model's tokenizer.json")
    parser.add_argument(
        "--nltk-data", type=Path, metavar="DIR", help="holds tokenizers/punkt_tab; for ROUGE-Lsum"
    )


def _image_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Answers are RGB pixels of 1024 x 1024, as the reference logs them."
    parser.add_argument("--dataset", type=Path, required=True, help="captions_source.tsv")
    parser.add_argument("--statistics", type=Path, required=True, help="val2014.npz")
    parser.add_argument(
        "--clip",
        type=Path,
        required=True,
        metavar="DIR",
        help="openai/clip-vit-base-patch32 of Hugging Face",
    )
    parser.add_argument(
        "--inception",
        type=Path,
        required=True,
        metavar="FILE",
        help="pytorch-fid's pt_inception-2015-12-05-6726825d.pth",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="write the pictures that a submission needs"
    )
    parser.add_argument("--round", default="v5.1", choices=names(), help="default: %(default)s")


_Scored = tuple[str, dict[str, Any]]
"""Print accuracy.txt's path and its values."""


def _texts(chosen: argparse.Namespace, only: frozenset[int] | None) -> _Scored:
    from steps.judge.scoring.score import score

    for path in (chosen.dataset, chosen.tokenizer):
        if not path.is_file():
            raise UserError(f"{path} isn't a file; name the one that the run used")
    table = _table(chosen.dataset, chosen.dataset_sha256)
    totals = score(
        chosen.benchmark, chosen.log, table, chosen.tokenizer, chosen.nltk_data, only=only
    )
    return totals.text(), totals.result()


def _images(chosen: argparse.Namespace, only: frozenset[int] | None) -> _Scored:
    from steps.judge.scoring.images import Files, Gallery, score

    files = Files(chosen.dataset, chosen.statistics, chosen.clip, chosen.inception, DIGESTS)
    gallery = None
    if chosen.images is not None:
        kept = load(chosen.round).benchmarks[IMAGES].extra_accuracy_files
        if "images" not in kept:
            raise UserError(f"round {chosen.round} needs no pictures; leave --images out")
        gallery = Gallery(chosen.images, [int(stem) for stem in kept["images"]])
    scores = score(chosen.log, files, gallery=gallery, only=only)
    return scores.text(), scores.result()


def published() -> set[str]:
    """md5 of the tables that MLCommons publishes, as conf/benchmark/ has them."""
    found: set[str] = set()
    for path in (CONF / "benchmark").glob("*.yaml"):
        files = read_yaml(path).get("benchmark", {}).get("dataset", {}).get("files", {})
        found |= {digest for digest in files.values() if digest is not None}
    return found


def _table(path: Path, trusted: str | None) -> Any:
    """Unpickling runs code, so the digest must be published or `trusted`, the user's own sha256."""
    import pandas

    if trusted is not None and not re.fullmatch("[0-9a-fA-F]{64}", trusted):
        raise UserError(f"--dataset-sha256 {trusted[:80]!r} isn't a sha256: give 64 digits")
    try:
        if path.suffix == ".json":
            return pandas.read_json(path)
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != (trusted or "").lower() and hashlib.md5(data).hexdigest() not in published():
            raise UserError(
                f"{path} is a pickle, which runs code when it is opened, and its digest isn't in "
                "conf/benchmark; fetch the published one, or, if you trust where "
                f"this one is from: --dataset-sha256 {digest}"
            )
        return pandas.read_pickle(io.BytesIO(data), compression=None)
    except (OSError, RecursionError, *UNPICKLING) as error:
        raise UserError(f"{path} isn't a table ({error}); fetch the dataset again") from error


if __name__ == "__main__":
    with plain_output():
        try:
            raise SystemExit(main(sys.argv[1:]))
        except UserError as failed:
            print(f"error: {shown(str(failed))}", file=sys.stderr)
            raise SystemExit(1) from failed
