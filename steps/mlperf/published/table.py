"""The published tables of a round: `vX.Y.csv`, one row a result; `vX.Y-runs.csv`, facts from the
logs; `vX.Y-clocks.csv`, the clocks that AMD's scripts/power_settings.sh sets (in no log);
`vX.Y-closed-rules.csv`, what of the closed division's rules an open result on Instinct meets;
`vX.Y-dropped.csv`, how many rows of the round are in no table, and why;
`vX.Y-reference.csv`, accuracy of the reference models (the round's submission_checker.py).

Plain CSV, so that a change of numbers is a diff that people can read. Made by
`./reproduce import-round`; read here and nowhere else.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from steps.base.errors import UserError, explain
from steps.base.record import write_atomically
from steps.base.strict import Strict
from steps.mlperf.published.result import Result, RunFacts, judged, marked_duplicates

FOLDER = Path(__file__).resolve().parent
RUNS = "-runs"
DROPPED = "-dropped"
CLOSED_RULES = "-closed-rules"
CLOCKS = "-clocks"
REFERENCE = "-reference"

REPOSITORY = "https://github.com/mlcommons/inference_results_{round}/tree/main/{path}"
"""Where MLCommons publishes the logs and measurements of a round."""

COLUMNS = tuple(
    name
    for name in Result.model_fields
    if name not in ("source", "round", "accuracy", "run", "compression", "problems")
)
_COUNTS = ("nodes", "accelerators_per_node", "processors_per_node")


def rounds() -> list[str]:
    """Rounds that have a table, oldest first."""
    found = [path.stem for path in FOLDER.glob("v*.csv") if "-" not in path.stem]
    return sorted(found, key=lambda name: [int(part) for part in name[1:].split(".")])


@cache
def load(round_name: str) -> tuple[Result, ...]:
    """The results of a round with the facts of their runs. Raises UserError if damaged."""
    path = FOLDER / f"{round_name}.csv"
    if not path.is_file():
        raise UserError(
            f"there is no table of round {round_name!r}; there are {', '.join(rounds())}; "
            "./reproduce import-round makes one"
        )
    runs = load_runs(FOLDER / f"{round_name}{RUNS}.csv")
    rows = _read(path)
    return tuple(marked_duplicates([_result(row, round_name, runs, path) for row in rows]))


def load_all() -> tuple[Result, ...]:
    """The results of every round that has a table."""
    return tuple(result for name in rounds() for result in load(name))


def load_runs(path: Path) -> dict[str, RunFacts]:
    """Facts by location of the result; empty if there is no such file."""
    if not path.is_file():
        return {}
    found = {}
    for row in _read(path):
        location = row.pop("location")
        numbers: dict[str, Any] = {
            name: float(text) if text else None
            for name, text in row.items()
            if name != "loadgen_version"
        }
        try:
            found[location] = RunFacts(loadgen_version=row["loadgen_version"], **numbers)
        except ValidationError as error:
            raise UserError(f"{path}, {location}: {explain(error)}") from error
    return found


@cache
def clocks(round_name: str) -> dict[tuple[str, str, str], int]:
    """Clocks in MHz by benchmark (without its accuracy target), accelerator and scenario."""
    path = FOLDER / f"{round_name}{CLOCKS}.csv"
    rows = _read(path) if path.is_file() else []
    return {(row["benchmark"], row["gpu"], row["scenario"]): int(row["mhz"]) for row in rows}


@cache
def reference_scores(round_name: str, benchmark: str) -> dict[str, float]:
    """The reference model's metrics; empty if the table has none of the benchmark."""
    path = FOLDER / f"{round_name}{REFERENCE}.csv"
    rows = _read(path) if path.is_file() else []
    model = model_of(benchmark)
    return {row["metric"]: float(row["reference"]) for row in rows if row["benchmark"] == model}


class ClosedRule(Strict):
    """One rule of the closed division, and whether an open result meets it.

    `of`: "result", or "submission" for what a single result can't meet. `found` is what `evidence`
    says, a path of the round's repository.
    """

    rule: str
    of: Literal["result", "submission"]
    met: bool
    found: str
    evidence: str


@cache
def closed_rules(round_name: str) -> dict[str, tuple[ClosedRule, ...]]:
    """Rules by location of the result; empty if the round has no such table."""
    path = FOLDER / f"{round_name}{CLOSED_RULES}.csv"
    found: dict[str, list[ClosedRule]] = {}
    for row in _read(path) if path.is_file() else []:
        location = row.pop("location")
        try:
            rule = ClosedRule.model_validate({**row, "met": row["met"] == "yes"})
        except ValidationError as error:
            raise UserError(f"{path}, {location}: {explain(error)}") from error
        found.setdefault(location, []).append(rule)
    return {location: tuple(rules) for location, rules in found.items()}


def accuracy_shares(result: Result) -> dict[str, float]:
    """Each accuracy metric as a share of the reference model's; without one it is left out."""
    scores = reference_scores(result.round, result.benchmark)
    return {
        name: result.accuracy[name] / score
        for name, score in scores.items()
        if name in result.accuracy
    }


def model_of(benchmark: str) -> str:
    """A benchmark without its accuracy target: "llama2-70b-99.9" is of llama2-70b."""
    return benchmark.removesuffix(".9").removesuffix("-99")


def save(path: Path, results: Iterable[Result]) -> None:
    """Write a table. `accuracy` is one cell, "ROUGE1=44.4 ROUGE2=22.0"."""
    write_atomically(path, to_csv(map(_row, results), (*COLUMNS, "accuracy")))


def results_csv(results: Iterable[Result]) -> str:
    """Results with the facts of their runs, as CSV."""
    rows = []
    for result in results:
        run = {name: _cell(getattr(result.run, name, None)) for name in RunFacts.model_fields}
        rows.append({"round": result.round, **_row(result), **run})
    return to_csv(rows, ("round", *COLUMNS, "accuracy", *RunFacts.model_fields))


def _row(result: Result) -> dict[str, str]:
    row = {name: _cell(getattr(result, name)) for name in COLUMNS}
    row["accuracy"] = " ".join(f"{name}={_cell(n)}" for name, n in result.accuracy.items())
    return row


def save_runs(path: Path, runs: Mapping[str, RunFacts]) -> None:
    """Write the facts of runs, in the order of their locations."""
    rows = [
        {"location": location, **{k: _cell(v) for k, v in run.model_dump().items()}}
        for location, run in sorted(runs.items())
    ]
    write_atomically(path, to_csv(rows, ("location", *RunFacts.model_fields)))


def link(result: Result) -> str:
    """Where a result's logs are: an address for a published one, a relative path for our own."""
    if result.source == "own":
        return result.location
    return REPOSITORY.format(round=result.round, path=result.location)


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from error


def _result(
    row: Mapping[str, str], round_name: str, runs: Mapping[str, RunFacts], path: Path
) -> Result:
    try:
        number: float | str = float(row["value"]) if row["value"] else "missing"
        value, problems = judged(number, row["unit"])
        counts = {name: int(row[name]) if row[name] else None for name in _COUNTS}
        texts = {n: row[n] for n in COLUMNS if n != "value" and n not in _COUNTS}
        metrics = [item.split("=") for item in row["accuracy"].split()]
        return Result(
            source="published",
            round=round_name,
            value=value,
            problems=problems,
            accuracy={name: float(number) for name, number in metrics},
            run=runs.get(row["location"]),
            **counts,  # type: ignore[arg-type]
            **texts,  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}, {row.get('location')}: damaged row ({error}); restore it from git or "
            "run ./reproduce import-round"
        ) from error


def _cell(value: Any) -> str:
    """Numbers in the shortest form that reads back the same."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
    return "" if value is None else str(value)
