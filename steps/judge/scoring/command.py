"""`./reproduce score BENCHMARK`: accuracy.txt of a full accuracy log, without a network."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from steps import ROOT
from steps.base.arguments import Parser
from steps.judge.scoring.forms import FORMS
from steps.mlperf.rounds import names, usual

IMAGES = "stable-diffusion-xl"
"""The benchmark whose answers are pictures, which are scored in their own environment."""


def declare(parser: Parser) -> None:
    """The benchmark, and the files of each."""
    parser.description = (
        "Score a full mlperf_log_accuracy.json as the benchmark's reference script does and write "
        "accuracy.txt (without its hash, which the truncation adds)."
    )
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    for name in sorted(FORMS):
        _text_arguments(_benchmark(benchmarks, name))
    _image_arguments(_benchmark(benchmarks, IMAGES))


def command(given: argparse.Namespace) -> int:
    """Becomes the Python of the environment that has what scores the answers."""
    from steps.machine.tools import environment_python

    python = environment_python(ROOT, "images" if given.benchmark == IMAGES else "analysis")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    sys.stdout.flush()
    words = [str(python), "-m", "steps.judge.scoring", *given.arguments]
    os.execve(python, words, environment)


def _benchmark(benchmarks: Any, name: str) -> Parser:
    parser: Parser = benchmarks.add_parser(name)
    parser.add_argument("--log", type=Path, required=True, help="untruncated accuracy log")
    parser.add_argument("--output", type=Path, required=True, help="accuracy.txt to write")
    parser.add_argument(
        "--samples-of",
        type=Path,
        metavar="LOG",
        help="score only the samples that this log of a TEST01 run answers",
    )
    return parser


def _text_arguments(parser: Parser) -> None:
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


def _image_arguments(parser: Parser) -> None:
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
    parser.add_argument("--round", default=usual(), choices=names(), help="default: %(default)s")
