"""The program of `./reproduce score`, in the environment that can score the benchmark's answers."""

import argparse
import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any

from steps import ROOT
from steps.base.arguments import Parser, UsageError
from steps.base.console import plain_output
from steps.base.errors import UserError, shown
from steps.base.record import require_writable, unwritable, write_atomically
from steps.base.yaml_text import mapping_of
from steps.judge.scoring.command import IMAGES, declare
from steps.judge.scoring.whole import samples_of
from steps.mlperf.rounds import load
from steps.prepare.samples import UNPICKLING

DIGESTS = {"inception": "6726825d"}
"""The beginning of the weights' sha256, from the name of pytorch-fid's file."""

CONF = ROOT / "conf"


def main(arguments: list[str]) -> int:
    """Exit status 0: everything was scored. Raises UserError otherwise."""
    parser = Parser(prog="./reproduce score")
    declare(parser)
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
        dataset = mapping_of(path).get("benchmark", {}).get("dataset", {})
        found |= {dataset.get(part, {}).get("md5") for part in ("evaluation", "calibration")}
    return found - {None}


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
        except (UsageError, UserError) as failed:
            print(f"error: {shown(str(failed))}", file=sys.stderr)
            raise SystemExit(2 if isinstance(failed, UsageError) else 1) from failed
