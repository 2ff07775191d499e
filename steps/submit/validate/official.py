"""The official checker of a checkout, run on the same tree, and where its verdicts differ."""

import csv
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError
from steps.submit.validate.findings import Severity, printable
from steps.submit.validate.submission import Report

LIMIT_SECONDS = 1800
"""All submitters of v5.1 (1,435 results) take it a minute; every wait has a limit."""

TABLE = "summary.csv"


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


def run_official(checkout: Path, tree: Path, round_name: str, scratch: Path) -> Official:
    """Its CSV is left in `scratch`. Raises UserError if the checkout has no checker or the checker
    doesn't end in time.
    """
    arguments, home = _checker(checkout)
    table = scratch / TABLE
    command = [
        *(sys.executable, *arguments, "--input", os.path.realpath(tree)),
        *("--version", round_name, "--csv", str(table)),
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
    accepted = _accepted(table)
    lines = (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace").splitlines()
    refused = [line.split("NoResults ", 1)[1].strip() for line in lines if "NoResults " in line]
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
    blamed: dict[str, set[str]] = {}
    for found in report.findings:
        if found.severity is Severity.ERROR:
            blamed.setdefault(found.path, set()).add(found.code)
    differing = []
    for row in report.rows:
        path = f"{row.division}/{row.submitter}/results/{row.system}/{row.model}"
        path += f"/{row.directory}"
        theirs = official.accepted.get(path)
        codes = set().union(*(found for at, found in blamed.items() if _concerns(at, path)))
        ours = f"errors: {', '.join(sorted(codes))}" if codes else "holds"
        if (theirs is None) == bool(codes):
            if theirs is not None and not _same(theirs, (row.result, row.units, row.accuracy)):
                mine = f"{row.result} {row.units}, {row.accuracy}"
                differing.append(Difference(path, f"{theirs[0]} {theirs[1]}, {theirs[2]}", mine))
            continue
        differing.append(Difference(path, "no result" if theirs is None else "accepts", ours))
    return differing


def _concerns(finding_path: str, result: str) -> bool:
    """Whether a finding concerns the result: in its directories or above it."""
    division, submitter, _, system, model, scenario = result.split("/", 5)
    home = f"{division}/{submitter}"
    trees = ("results", "measurements", "compliance")
    own = tuple(f"{home}/{tree}/{system}/{model}/{scenario}" for tree in trees)
    described = {
        "",
        home,
        f"{home}/systems/{system}.json",
        f"{home}/code/{model}",
        *(f"{home}/{tree}/{system}" for tree in trees),
        *(f"{home}/{tree}/{system}/{model}" for tree in trees),
    }
    return finding_path in described or any(
        finding_path == path or finding_path.startswith(f"{path}/") for path in own
    )


def _same(theirs: tuple[str, str, str], ours: tuple[float | None, str, str]) -> bool:
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


def _accepted(table: Path) -> dict[str, tuple[str, str, str]]:
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", errors="replace", newline="") as stream:
        return {
            row["Location"]: (row["Result"], row["Units"], row["Accuracy"])
            for row in csv.DictReader(stream)
            if row.get("Location") and row.get("Units")
        }


def _crash(lines: list[str]) -> str:
    """The exception that ended it; its malformed logging calls print tracebacks and go on."""
    if any("SUMMARY" in line for line in lines):
        return ""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return printable(last)[:200]
