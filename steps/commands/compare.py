"""`./reproduce compare A B`: two results, in numbers and in configuration.

A and B are each the directory of an experiment's results (results/NAME, of this or another
machine), a summary.json, or published results by ID: 5.1-0002, 5.1-0002/llama2-70b-99.9/Server.
"""

import argparse
import json
import re
from pathlib import Path

from pydantic import ValidationError

from steps import ROOT
from steps.base.arguments import Parser, json_argument
from steps.base.errors import UserError, explain
from steps.base.record import Manifest
from steps.base.untrusted import json_of
from steps.mlperf.published import table
from steps.mlperf.published.result import Result
from steps.plan.states import WORDS
from steps.report import own
from steps.report.comparison.difference import Change, Difference, Pair, Side, compare
from steps.report.summary import Summary

ID = re.compile(r"(\d+\.\d+)-\d{4}(/[^/]+){0,2}")
MOST_WIDTH = 44
"""Longer values are cut in the terminal; --json has them whole."""


def declare(parser: Parser) -> None:
    """The two results."""
    parser.description = f"Compare {__doc__.partition(chr(58))[2].strip()}"
    parser.add_argument("a", metavar="A")
    parser.add_argument("b", metavar="B")
    json_argument(parser, "the whole comparison")


def command(given: argparse.Namespace) -> int:
    """Prints the differences; raises UserError for a side that isn't a result."""
    found = compare(side(given.a), side(given.b))
    print(found.model_dump_json(indent=1) if given.json else rendered(found))
    return 0


def side(name: str) -> Side:
    """The side for a name: a path, or results/NAME of the checkout from any directory. Raises
    UserError for anything else.
    """
    path = Path(name)
    if not path.exists() and Path(name).parts[:1] == ("results",):
        path = ROOT / name
    if path.is_dir():
        return _directory(path)
    if path.is_file():
        return _summary(path)
    if ID.fullmatch(name):
        return _published(name)
    raise UserError(
        f"{name!r} is neither a directory, a summary.json nor a published ID such as "
        "5.1-0002 or 5.1-0002/llama2-70b-99.9/Server"
    )


def _published(name: str) -> Side:
    rounds = f"v{name.split('-')[0]}"
    found = tuple(
        row for row in table.load(rounds) if row.name == name or row.name.startswith(f"{name}/")
    )
    if not found:
        raise UserError(f"the table of {rounds} has no result {name!r}")
    return Side(name=name, results=found, configurations={}, systems={})


def _summary(path: Path) -> Side:
    try:
        raw = json_of(path.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and "results" in raw:
            results = tuple(Result.model_validate_json(json.dumps(r)) for r in raw["results"])
            return Side(name=str(path), results=results, configurations={}, systems={})
        if isinstance(raw, dict):  # what was computed is of the version that made the page
            raw = {k: v for k, v in raw.items() if k not in ("partners", "claims", "scaling")}
        summary = Summary.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        raise UserError(f"{path} isn't a report's summary.json: {explain(error)}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} isn't a report's summary.json: {error}") from error
    return Side(
        name=str(path),
        results=own.results(summary),
        configurations={
            cell.evidence["performance log"]: cell.configuration for cell in summary.cells
        },
        systems=summary.systems,
        missing=tuple(
            f"{cell.key}: {WORDS[cell.state]}" for cell in summary.states if cell.state != "valid"
        ),
    )


def _directory(path: Path) -> Side:
    """A report's directory, an experiment's, or an experiment that is not finished."""
    for summary in (path / "summary.json", path / "report/summary.json"):
        if summary.is_file():
            return _summary(summary).model_copy(update={"name": str(path)})
    manifests = sorted((path / "runs").glob("**/performance_run/manifest.json"))
    planned = sorted({found.parent for found in (path / "logs").glob("**/*_run.log")})
    if not manifests and not planned:
        raise UserError(
            f"{path} holds no results: neither report/summary.json nor runs/ of an experiment"
        )
    done = tuple(
        f"{found.parent.parent.relative_to(path / 'runs')}: run, not reported yet"
        for found in manifests
        if Manifest.read(found).step == "performance_run"
    )
    begun = {str(folder.relative_to(path / "logs")) for folder in planned}
    begun -= {str(found.parent.parent.relative_to(path / "runs")) for found in manifests}
    return Side(
        name=f"{path} (not finished)",
        results=(),
        configurations={},
        systems={},
        missing=(*done, *(f"{cell}: started, no performance run yet" for cell in sorted(begun))),
    )


def rendered(found: Difference) -> str:
    """Text for the terminal: a block for each pair, then results without a counterpart."""
    lines = [f"A  {found.a}", f"B  {found.b}"]
    for pair in found.pairs:
        lines += ["", *_pair(pair)]
    if not found.pairs:
        lines += ["", "no result of A has a counterpart in B"]
    for words, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            lines += ["", f"only in {words}", *(f"  {name}" for name in names)]
    return "\n".join(lines)


def _pair(pair: Pair) -> list[str]:
    if pair.ratio is None:
        head = f"{pair.title}: not compared ({pair.reason})"
    else:
        remark = f" ({pair.remark})" if pair.remark else ""
        head = f"{pair.title}: B {100 * (pair.ratio - 1):+.2f} % against A{remark}"
    lines = [head, *_columns("numbers", pair.numbers, percent=pair.ratio is not None)]
    if pair.configuration:
        return [*lines, *_columns("configuration, where it differs", pair.configuration)]
    return [*lines, "  configuration: no difference in keys that both state"]


def _columns(title: str, changes: tuple[Change, ...], percent: bool = False) -> list[str]:
    rows = [("", "A", "B", "")]
    rows += [(c.what, c.a or "–", c.b or "–", _percent(c) if percent else "") for c in changes]
    cut = [tuple(_cut(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in cut) for column in range(4)]
    return [
        f"  {title}",
        *(
            "    "
            + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cut
        ),
    ]


def _percent(change: Change) -> str:
    try:
        a, b = (float(text.replace(",", "")) for text in (change.a, change.b))
    except ValueError:
        return ""
    return f"{100 * (b / a - 1):+.2f} %" if a else ""


def _cut(text: str) -> str:
    return text if len(text) <= MOST_WIDTH else f"{text[: MOST_WIDTH - 1]}…"
