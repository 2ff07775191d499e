"""What `./reproduce score` runs, in the analysis environment."""

import argparse
import pickle
import sys
from pathlib import Path
from typing import Any

from steps.errors import UserError
from steps.record import write_atomically
from steps.scoring.forms import FORMS
from steps.scoring.score import score


def main(arguments: list[str]) -> int:
    """Exit status 0: everything was scored. Raises UserError otherwise."""
    parser = argparse.ArgumentParser(
        prog="./reproduce score",
        description="Score a full mlperf_log_accuracy.json as the benchmark's reference script "
        "does and write accuracy.txt (without its hash, which the truncation adds). Answers are "
        "int32 tokens, as the reference implementations log them.",
    )
    parser.add_argument("benchmark", choices=sorted(FORMS))
    parser.add_argument("--log", type=Path, required=True, help="untruncated accuracy log")
    parser.add_argument(
        "--dataset", type=Path, required=True, help="the reference's table (.pkl, .json)"
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="the model's tokenizer.json")
    parser.add_argument("--output", type=Path, required=True, help="accuracy.txt to write")
    parser.add_argument(
        "--nltk-data", type=Path, metavar="DIR", help="holds tokenizers/punkt_tab; for ROUGE-Lsum"
    )
    chosen = parser.parse_args(arguments)
    for path in (chosen.dataset, chosen.tokenizer):
        if not path.is_file():
            raise UserError(f"{path} is no file; name the one that the run used")
    table = _table(chosen.dataset)
    totals = score(chosen.benchmark, chosen.log, table, chosen.tokenizer, chosen.nltk_data)
    write_atomically(chosen.output, totals.text())
    print(totals.result())
    return 0


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
