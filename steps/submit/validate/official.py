"""The official checker of a checkout, run on the same tree, and where its verdicts differ."""

import csv
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError
from steps.mlperf.loadgen import DETAIL
from steps.mlperf.rounds import layouts
from steps.submit.validate.findings import Finding, Severity, printable
from steps.submit.validate.submission import Report

LIMIT_SECONDS = 1800
"""All submitters of v5.1 (1,435 results) take it a minute; every wait has a limit."""

TABLE = "summary.csv"
RUN = "performance/run_1"
RESULTS = "results"
RESULT_PARTS = 6
"""The parts of a result's path: division, submitter, tree, system, model, scenario."""


@dataclass(frozen=True)
class Official:
    """`accepted` maps results (directories) to (result, units, accuracy) as in its CSV.

    `refused` are results and other entries it gave no result; `crash` is the last line of a
    traceback, "" without one; `errors` its first error lines. `table` is the name of its CSV.
    """

    command: str
    passed: bool
    accepted: dict[str, tuple[str, str, str]]
    refused: list[str]
    errors: list[str]
    crash: str
    table: str


@dataclass(frozen=True)
class Difference:
    """One result that the two judge differently."""

    path: str
    official: str
    reprise: str


def run_official(
    checkout: Path, tree: Path, round_name: str, scratch: Path, options: Sequence[str] = ()
) -> Official:
    """Its CSV is left in `scratch`. Raises UserError if the checkout has no checker or the checker
    doesn't end in time.
    """
    arguments, home = _checker(checkout)
    table = scratch / TABLE
    root = os.path.realpath(tree)
    command = [
        *(sys.executable, *arguments, "--input", root),
        *("--version", round_name, "--csv", str(table), *options),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=home,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"the official checker did not end within {LIMIT_SECONDS} s; run it by itself: "
            f"cd {home} && {' '.join(command)}"
        ) from error
    accepted = _accepted(table, root)
    lines = (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace").splitlines()
    refused = [
        _result(line.split("NoResults ", 1)[1].strip(), root)
        for line in lines
        if "NoResults " in line
    ]
    for path in refused:
        accepted.pop(path, None)
    return Official(
        command=" ".join(arguments),
        passed=done.returncode == 0,
        accepted=accepted,
        refused=refused,
        errors=[printable(line) for line in lines if " ERROR]" in line or " - ERROR - " in line],
        crash=_crash(lines) if done.returncode else "",
        table=TABLE,
    )


def home_of(checkout: Path) -> Path:
    """The directory of a checkout's tools; raises UserError without it."""
    return _checker(checkout)[1]


def differences(report: Report, official: Official) -> list[Difference]:
    """Results that only one accepts, or that both accept with other values."""
    blamed = blame(report)
    differing = []
    for row in report.rows:
        theirs = official.accepted.get(row.path)
        codes = {finding.code for finding in blamed[row.path]}
        ours = f"errors: {', '.join(sorted(codes))}" if codes else "holds"
        if (theirs is None) == bool(codes):
            if theirs is not None and not same(theirs, (row.result, row.units, row.accuracy)):
                mine = f"{row.result} {row.units}, {row.accuracy}"
                differing.append(
                    Difference(row.path, f"{theirs[0]} {theirs[1]}, {theirs[2]}", mine)
                )
            continue
        differing.append(Difference(row.path, "no result" if theirs is None else "accepts", ours))
    return differing


def blame(report: Report) -> dict[str, list[Finding]]:
    """For every result the errors that speak of it: in its directories or above it."""
    trees = _trees()
    below: dict[str, list[Finding]] = defaultdict(list)
    exactly: dict[str, list[Finding]] = defaultdict(list)
    for found in report.findings:
        if found.severity is Severity.ERROR:
            parts = found.path.split("/", RESULT_PARTS)
            own = len(parts) >= RESULT_PARTS and parts[2] in trees
            (below if own else exactly)["/".join(parts[:RESULT_PARTS]) if own else found.path] += [
                found
            ]
    return {row.path: list(_blamed(row.path, below, exactly)) for row in report.rows}


def _trees() -> tuple[str, ...]:
    """Folders of a submitter that have one for each result, in any layout."""
    apart = (folder for one in layouts() for folder in (one.measurements, one.compliance))
    return tuple(dict.fromkeys((RESULTS, *filter(None, apart))))


def _blamed(
    result: str, below: Mapping[str, list[Finding]], exactly: Mapping[str, list[Finding]]
) -> Iterator[Finding]:
    division, submitter, _, system, model, scenario = result.split("/", RESULT_PARTS - 1)
    home = f"{division}/{submitter}"
    code = (f"{home}/{layout.code}/{model}" for layout in layouts())
    for path in ("", home, f"{home}/systems/{system}.json", *dict.fromkeys(code)):
        yield from exactly.get(path, ())
    for tree in _trees():
        yield from exactly.get(f"{home}/{tree}/{system}", ())
        yield from exactly.get(f"{home}/{tree}/{system}/{model}", ())
        yield from below.get(f"{home}/{tree}/{system}/{model}/{scenario}", ())


def same(theirs: tuple[str, str, str], ours: tuple[float | None, str, str]) -> bool:
    """Whether result, units and accuracy are equal."""
    try:
        number = float(theirs[0])
    except ValueError:
        return False
    return number == ours[0] and theirs[1:] == ours[1:]


def _checker(checkout: Path) -> tuple[list[str], Path]:
    for home in (checkout / "tools/submission", checkout):
        if (home / "submission_checker.py").is_file():
            return ["submission_checker.py"], home
        if (home / "submission_checker/main.py").is_file():
            return ["-m", "submission_checker.main"], home
    raise UserError(
        f"{checkout} has no tools/submission/submission_checker; name a checkout of "
        "https://github.com/mlcommons/inference (for v5.1 at tag v5.1.1)"
    )


def _result(path: str, root: str) -> str:
    """A result's directory by what the checkers call it: v6's is the log's whole path."""
    return path.removeprefix(f"{root}/").removesuffix(f"/{DETAIL}").removesuffix(f"/{RUN}")


def _accepted(table: Path, root: str) -> dict[str, tuple[str, str, str]]:
    """Where power was measured too, a second row has it."""
    found: dict[str, tuple[str, str, str]] = {}
    if table.is_file():
        with table.open(encoding="utf-8", errors="replace", newline="") as stream:
            for row in csv.DictReader(stream):
                if row.get("Location") and row.get("Units"):
                    value = (row["Result"], row["Units"], row["Accuracy"])
                    found.setdefault(_result(row["Location"], root), value)
    return found


def _crash(lines: list[str]) -> str:
    """The exception that ended it; its malformed logging calls print tracebacks and go on."""
    if any("SUMMARY" in line for line in lines):
        return ""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return printable(last)[:200]
