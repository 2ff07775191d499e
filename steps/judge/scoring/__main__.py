"""What `./reproduce score` runs, in the environment that has what scores a benchmark's answers."""

import argparse
import pickle
import sys
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.record import write_atomically
from steps.judge.scoring.command import IMAGES
from steps.judge.scoring.forms import FORMS
from steps.judge.scoring.whole import samples_of
from steps.mlperf.rounds import load, names

DIGESTS = {"inception": "6726825d"}
"""Of weights: what the name of pytorch-fid's file says."""


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
    text, result = (_images if chosen.benchmark == IMAGES else _texts)(chosen, only)
    write_atomically(chosen.output, text)
    print(result)
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
    parser.description = "Answers are int32 tokens, as the reference implementations log them."
    parser.add_argument(
        "--dataset", type=Path, required=True, help="the reference's table (.pkl, .json)"
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
        "--images", type=Path, metavar="DIR", help="write the pictures that a submission carries"
    )
    parser.add_argument("--round", default="v5.1", choices=names(), help="default: %(default)s")


_Scored = tuple[str, dict[str, Any]]
"""accuracy.txt, and what it says by name."""


def _texts(chosen: argparse.Namespace, only: frozenset[int] | None) -> _Scored:
    from steps.judge.scoring.score import score

    for path in (chosen.dataset, chosen.tokenizer):
        if not path.is_file():
            raise UserError(f"{path} is no file; name the one that the run used")
    table = _table(chosen.dataset)
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
            raise UserError(f"round {chosen.round} asks for no pictures; leave --images out")
        gallery = Gallery(chosen.images, [int(stem) for stem in kept["images"]])
    scores = score(chosen.log, files, gallery=gallery, only=only)
    return scores.text(), scores.result()


def _table(path: Path) -> Any:
    import pandas

    try:
        return pandas.read_json(path) if path.suffix == ".json" else pandas.read_pickle(path)
    except (
        OSError,
        EOFError,
        ValueError,
        ImportError,
        AttributeError,
        pickle.PickleError,
    ) as error:
        raise UserError(f"{path} is no table ({error}); fetch the dataset again") from error


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except UserError as failed:
        print(f"error: {failed}", file=sys.stderr)
        raise SystemExit(1) from failed
