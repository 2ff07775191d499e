"""The official tools beside the checker: what they would change in a tree, and publish from it."""

import filecmp
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError
from steps.mlperf.loadgen import ANSWERS
from steps.submit.validate.findings import printable
from steps.submit.validate.official import LIMIT_SECONDS, Difference, Official, home_of
from steps.submit.validate.submission import Report

TRUNCATION, REPORT = "truncate_accuracy_log.py", "generate_final_report.py"
PACKAGED = ("accuracy.txt", ANSWERS)
TRUNCATION_CODES = ("accuracy-not-truncated", "accuracy-hash-missing", "accuracy-missing")
REPORTED = ("Performance_Result", "Performance_Units", "Accuracy")


@dataclass(frozen=True)
class Tool:
    """One tool on a tree. `failed`: why it had no result, "" if it had one."""

    name: str
    failed: str
    differences: list[Difference]


def run_tools(
    checkout: Path, tree: Path, report: Report, official: Official, scratch: Path, python: str
) -> list[Tool]:
    """Both tools of a checkout, on a copy of the tree below `scratch`.

    `python` has numpy, pandas and xlsxwriter for the report tool. Raises UserError if a tool
    doesn't end in time.
    """
    home = home_of(checkout)
    return [
        _truncation(home, tree, report, scratch),
        _report(home, report, official, scratch, python),
    ]


def _truncation(home: Path, tree: Path, report: Report, scratch: Path) -> Tool:
    """The tool's copy differs where it would have truncated a log; ours says where that is due."""
    if not (home / TRUNCATION).is_file():
        return Tool(TRUNCATION, "it is not in this checkout", [])
    differing: list[Difference] = []
    for submitter in sorted({row.submitter for row in report.rows}):
        copy = scratch / f"truncated-{len(differing)}-{submitter}"
        arguments = ["--input", os.path.realpath(tree), "--submitter", submitter]
        failed = _run([sys.executable, TRUNCATION, *arguments, "--output", str(copy)], home)
        if failed:
            return Tool(TRUNCATION, failed, differing)
        differing += _truncated(tree, copy, submitter, report)
    return Tool(TRUNCATION, "", differing)


def _truncated(tree: Path, copy: Path, submitter: str, report: Report) -> Iterator[Difference]:
    blamed = {found.path for found in report.findings if found.code in TRUNCATION_CODES}
    for row in report.rows:
        if row.submitter != submitter:
            continue
        place = row.path
        names = [f"{place}/accuracy/{name}" for name in PACKAGED]
        changed = any(
            (tree / name).is_file()
            and (copy / name).is_file()
            and not filecmp.cmp(tree / name, copy / name, shallow=False)
            for name in names
        )
        due = any(name in blamed for name in names)
        if changed != due:
            theirs = "truncates the log" if changed else "leaves the log as it is"
            yield Difference(place, theirs, "due" if due else "truncated already")


def _report(home: Path, report: Report, official: Official, scratch: Path, python: str) -> Tool:
    if not (home / REPORT).is_file():
        return Tool(REPORT, "it is not in this checkout", [])
    table = scratch / official.table
    if not table.is_file():
        return Tool(REPORT, "the checker wrote no table", [])
    version = ["--version", report.round.removeprefix("v")]
    failed = _run([python, str(home / REPORT), "--input", str(table), *version], scratch)
    rows = table.with_name(f"{table.stem}_results.json")
    if failed or not rows.is_file():
        return Tool(REPORT, failed or "it wrote no results", [])
    try:
        published = {
            str(row["Location"]): tuple(row.get(name) for name in REPORTED)
            for row in json.loads(rows.read_text(encoding="utf-8"))
        }
    except (ValueError, KeyError, TypeError) as error:
        return Tool(REPORT, f"its results can't be read ({error})", [])
    return Tool(REPORT, "", list(_unequal(published, report)))


def _unequal(published: dict[str, tuple[object, ...]], report: Report) -> Iterator[Difference]:
    for row in report.rows:
        place = row.path
        ours = (row.result, row.units, row.accuracy)
        theirs = published.get(place)
        if theirs is None and row.valid:
            yield Difference(place, "no row in the final report", f"{row.result} {row.units}")
        elif theirs is not None and theirs != ours:
            yield Difference(place, " ".join(map(str, theirs)), " ".join(map(str, ours)))


def _run(command: list[str], directory: Path) -> str:
    """Why it failed; empty if it didn't."""
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{Path(command[1]).name} did not end within {LIMIT_SECONDS} s; run it by itself"
        ) from error
    except OSError as error:
        raise UserError(f"{command[0]} can't be run ({error.strerror})") from error
    if not done.returncode:
        return ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return printable(lines[-1] if lines else f"exit status {done.returncode}")[:200]
