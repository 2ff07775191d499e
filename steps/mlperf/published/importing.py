"""The tables of a round, made from a checkout of MLCommons' repository of its results."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import write_atomically
from steps.mlperf.published.logs import run_facts
from steps.mlperf.published.result import Result
from steps.mlperf.published.source import SUMMARIES, read_summary
from steps.mlperf.published.table import DROPPED, FOLDER, RUNS, load_runs, save, save_runs, to_csv

LOG = "the performance log"


@dataclass(frozen=True)
class Imported:
    """`results` are the rows of the table, `dropped` counts the others by their reason; `without`
    counts rows whose log says nothing, by what is wrong with it."""

    results: tuple[Result, ...]
    dropped: Counter[str]
    without: Counter[str]
    runs: int
    paths: tuple[Path, ...]


def summary_of(checkout: Path) -> Path:
    """The summary at the checkout's root. Raises UserError if there is none."""
    if not checkout.is_dir():
        raise UserError(f"{checkout} is not a directory; give a checkout of the round's results")
    found = next((checkout / name for name in SUMMARIES if (checkout / name).is_file()), None)
    if found is None:
        raise UserError(
            f"{checkout} has neither {' nor '.join(SUMMARIES)}; give the root of a checkout of "
            "mlcommons/inference_results_vX.Y"
        )
    return found


def import_tables(checkout: Path, round_name: str, folder: Path = FOLDER) -> Imported:
    """Write the round's tables below `folder`: rows, facts of their runs, counts of what was left.

    Facts of results that have no log in this checkout stay as they are in the table. Raises
    UserError for a summary that can't be read or is of another round.
    """
    summary = summary_of(checkout)
    rows = read_summary(summary)
    others = sorted({row.round for row in rows} - {round_name})
    if others:
        raise UserError(f"{summary} has results of {', '.join(others)}, not {round_name} alone")
    kept = tuple(row for row in rows if not reason_to_drop(row))
    dropped = Counter(reason for row in rows if (reason := reason_to_drop(row)))
    runs = folder / f"{round_name}{RUNS}.csv"
    facts = load_runs(runs)
    without: Counter[str] = Counter()
    for row in kept:
        try:
            found = run_facts(checkout / row.location)
        except UserError as error:
            without[f"{LOG} can't be used ({str(error).partition(' has ')[2] or error})"] += 1
            continue
        if found:
            facts[row.location] = found
        elif row.location not in facts:
            without[f"{LOG} isn't in the checkout"] += 1
    known = {row.location for row in kept}
    facts = {location: found for location, found in facts.items() if location in known}
    table, counts = folder / f"{round_name}.csv", folder / f"{round_name}{DROPPED}.csv"
    save(table, kept)
    save_runs(runs, facts)
    lines = [{"reason": reason, "rows": str(n)} for reason, n in sorted(dropped.items())]
    write_atomically(counts, to_csv(lines, ("reason", "rows")))
    return Imported(kept, dropped, without, len(facts), (table, runs, counts))


def reason_to_drop(row: Result) -> str:
    """ "" for a row of the table."""
    return "" if "datacenter" in row.suite else f"of the {row.suite or 'unknown'} suite"


def problems(results: Sequence[Result]) -> Counter[str]:
    """Rows that can't be compared, by why."""
    return Counter(row.reason for row in results if row.reason)
