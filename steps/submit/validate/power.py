"""Power measurements: their files, and whether the meter measured during the run.

The rest (the meter's range, the clocks, the versions of its driver) only the Power working group's
tool judges, which the official checker runs.
"""

import math
from datetime import datetime

from steps.base.untrusted import Damaged, lines_of
from steps.mlperf.detail import Detail, utc_time
from steps.mlperf.loadgen import ANSWERS, RUN_FILES
from steps.submit.validate.findings import Findings
from steps.submit.validate.tree import TOLERATED_FILES, Tree

POWER, RANGING = "power", "ranging"
METER_LOG = "spl.txt"
"""Samples of the power meter (REQUIRED_PERF_POWER_FILES of the checkers)."""

METER_FILES = ("client.json", "client.log", "ptd_logs.txt", "server.json", "server.log")
"""REQUIRED_POWER_FILES of the checkers."""


def check_power(
    tree: Tree, parent: str, run: str, detail: Detail | None, findings: Findings
) -> None:
    """Check what was measured beside the run `run`, whose detail log is given if there is one."""
    findings.add("power-not-checked", f"{parent}/{POWER}", "power was measured")
    _check_files(tree, f"{parent}/{POWER}", METER_FILES, (), findings)
    for folder in (f"{parent}/{RANGING}", run):
        _check_files(tree, folder, (*RUN_FILES, METER_LOG), (ANSWERS,), findings)
    path = f"{run}/{METER_LOG}"
    if detail is None or not tree.is_file(path):
        return
    try:
        measured = _measures(tree, path, detail)
    except Damaged as damage:
        findings.add("power-samples", path, str(damage), line=damage.line)
        return
    if not measured:
        what = "no sample above 0 W is from between power_begin and power_end of the run"
        findings.add("power-samples", path, what)


def _check_files(
    tree: Tree, folder: str, wanted: tuple[str, ...], optional: tuple[str, ...], findings: Findings
) -> None:
    files = set(tree.files(folder))
    for name in sorted(set(wanted) - files):
        findings.add("power-files", f"{folder}/{name}", f"{name} is missing")
    for name in sorted(files - {*wanted, *TOLERATED_FILES, *optional}):
        findings.add("power-files", f"{folder}/{name}", f"{name} does not belong here")


def _measures(tree: Tree, path: str, detail: Detail) -> bool:
    """Whether a sample is of the run; raises Damaged for a damaged line."""
    span = detail.span()
    found = False
    for number, line in lines_of(tree.at(path)):
        if line.startswith(b"Time"):
            at, watts = _sample(line, number)
            found = found or (span is not None and span[0] < at < span[1] and watts > 0)
    return found


def _sample(line: bytes, number: int) -> tuple[datetime, float]:
    """Time (UTC) and watts of `Time,07-28-2025 08:09:12.507,Watts,2884.0,...`."""
    fields = line.decode("ascii", "replace").split(",", 4)
    at = utc_time(fields[1]) if len(fields) > 3 else None
    try:
        watts = float(fields[3]) if at else math.nan
    except ValueError:
        watts = math.nan
    if at is None or not math.isfinite(watts):
        raise Damaged("it is no sample of a power meter", number)
    return at, watts
