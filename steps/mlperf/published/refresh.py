"""`python -m steps.mlperf.published.refresh summary_results.json [--results DIR]`: a round's table.

MLCommons publishes the file in mlcommons/inference_results_vX.Y. `--results` names a checkout of
that repository: facts of the runs (LoadGen's version, target_qps, p99) come from its logs, and
those of results without a log there stay as they are in the table.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from steps.base.errors import UserError
from steps.mlperf.published.logs import run_facts
from steps.mlperf.published.result import Result
from steps.mlperf.published.source import read_summary
from steps.mlperf.published.table import FOLDER, RUNS, load_runs, save, save_runs

BENCHMARKS = ("deepseek-r1", "llama", "mixtral", "stable-diffusion-xl", "whisper")
"""Prefixes of the benchmarks that a comparison of accelerators can use. The rest of a round's
datacenter suite (recommendation, graphs, detection) has no result on an Instinct GPU."""


def refresh(summary: Path, results: Path | None, folder: Path = FOLDER) -> list[Path]:
    """Write the tables and return their paths."""
    rows = [row for row in read_summary(summary) if kept(row)]
    names = sorted({row.round for row in rows})
    if len(names) != 1:
        raise UserError(
            f"{summary} holds datacenter results of {len(names)} rounds {names}; one is needed"
        )
    table, run_table = folder / f"{names[0]}.csv", folder / f"{names[0]}{RUNS}.csv"
    save(table, rows)
    if results is None:
        return [table]
    if not results.is_dir():
        raise UserError(f"{results} is not a directory; give a checkout of the round's results")
    facts = load_runs(run_table)
    for row in rows:
        if found := run_facts(results / row.location):
            facts[row.location] = found
    save_runs(run_table, facts)
    return [table, run_table]


def kept(row: Result) -> bool:
    return row.suite == "datacenter" and row.benchmark.startswith(BENCHMARKS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m steps.mlperf.published.refresh")
    parser.add_argument("summary", type=Path)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    try:
        for path in refresh(arguments.summary, arguments.results):
            print(path)
        rows = read_summary(arguments.summary)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counts = Counter(problem for row in rows if kept(row) for problem in row.problems)
    for problem, count in counts.items():
        print(f"{count} rows: {problem}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
