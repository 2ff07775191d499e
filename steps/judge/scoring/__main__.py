"""What `./reproduce score` runs, in the environment that has what scores a benchmark's answers."""

import argparse
import pickle
import sys
from pathlib import Path
from typing import Any

from steps.base.arguments import Parser, UsageError
from steps.base.errors import UserError
from steps.base.record import write_atomically
from steps.judge.scoring.command import IMAGES, declare
from steps.judge.scoring.whole import samples_of
from steps.mlperf.rounds import load

DIGESTS = {"inception": "6726825d"}
"""Of weights: what the name of pytorch-fid's file says."""


def main(arguments: list[str]) -> int:
    """Exit status 0: everything was scored. Raises UserError otherwise."""
    parser = Parser(prog="./reproduce score")
    declare(parser)
    chosen = parser.parse_args(arguments)
    only = None if chosen.samples_of is None else samples_of(chosen.samples_of)
    text, result = (_images if chosen.benchmark == IMAGES else _texts)(chosen, only)
    write_atomically(chosen.output, text)
    print(result)
    return 0


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
    except (UsageError, UserError) as failed:
        print(f"error: {failed}", file=sys.stderr)
        raise SystemExit(2 if isinstance(failed, UsageError) else 1) from failed
