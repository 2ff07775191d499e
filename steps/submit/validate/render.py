"""A report as text, JSON or a page."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.submit.validate.findings import Finding, Severity, codes
from steps.submit.validate.submission import Report

if TYPE_CHECKING:
    from steps.submit.validate.official import Difference, Official
    from steps.submit.validate.official_tools import Tool

ORDER = {severity: number for number, severity in enumerate(Severity)}
COLUMNS = ("system", "model", "scenario", "result", "units", "accuracy", "files")
SHOWN_ERRORS = 5
"""How many of the official checker's error lines are shown."""

FORMAT = 1
"""Version of the JSON: raised when a field changes its meaning or is removed."""


def ordered(report: Report) -> list[Finding]:
    """Errors first, then by place."""
    return sorted(
        report.findings, key=lambda found: (ORDER[found.severity], found.path, found.line)
    )


def place(finding: Finding) -> str:
    """path:line, as editors and compilers write it; "." is the tree itself."""
    path = finding.path or "."
    return f"{path}:{finding.line}" if finding.line else path


def text(report: Report) -> Iterator[str]:
    """One line a finding with its fix, then the results, then the count."""
    for found in ordered(report):
        fix = codes()[found.code].fix
        yield f"{place(found)}: {found.severity.value}: {found.what} [{found.code}] fix: {fix}"
    if report.rows:
        if report.findings:
            yield ""
        yield from _table([COLUMNS, *_cells(report)])
    yield ""
    yield summary(report)


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """The first row is the head. tabulate would take a twelfth of the time of AMD's whole tree."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = tuple("-" * width for width in widths)
    for row in (rows[0], rule, *rows[1:]):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def summary(report: Report) -> str:
    """One line: the verdict and its counts."""
    counts = ", ".join(
        _counted(report.count(severity), severity.value)
        for severity in (Severity.ERROR, Severity.WARNING)
    )
    counts += f", {report.count(Severity.ADVICE)} advice"
    verdict = "valid" if report.valid() else "not valid"
    hint = "" if not report.findings else "; ./reproduce explain CODE tells more"
    results = _counted(len(report.rows), "result")
    return f"{results} by the rules of {report.round}: {verdict} ({counts}){hint}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def as_object(report: Report) -> dict[str, Any]:
    """For --json: everything, each finding with the why and fix of its code."""
    return {
        "format": FORMAT,
        "root": report.root,
        "round": report.round,
        "layout": report.layout,
        "valid": report.valid(),
        "counts": {severity.value: report.count(severity) for severity in Severity},
        "findings": [
            {
                "code": found.code,
                "severity": found.severity.value,
                "path": found.path,
                "line": found.line,
                "what": found.what,
                "why": codes()[found.code].why,
                "fix": codes()[found.code].fix,
            }
            for found in ordered(report)
        ],
        "results": [asdict(row) for row in report.rows],
    }


def as_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def compared(
    official: "Official", differing: "list[Difference]", tools: "list[Tool]"
) -> Iterator[str]:
    """The verdicts of the official tools and every result that they judge differently."""
    verdict = "passes" if official.passed else "does not pass"
    if official.crash:
        verdict = f"stopped with a traceback ({official.crash})"
    yield f"official checker: {verdict}, {_counted(len(official.accepted), 'result')}"
    for line in official.errors[:SHOWN_ERRORS]:
        yield f"  {line}"
    if len(official.errors) > SHOWN_ERRORS:
        yield f"  and {len(official.errors) - SHOWN_ERRORS} more error lines"
    if not differing:
        yield "no result is judged differently"
    for item in differing:
        yield f"{item.path}: official {item.official}; Reprise {item.reprise}"
    for tool in tools:
        differ = _counted(len(tool.differences), "difference")
        yield f"official {tool.name}: {f'not compared: {tool.failed}' if tool.failed else differ}"
        for item in tool.differences:
            yield f"  {item.path}: official {item.official}; Reprise {item.reprise}"


def official_object(
    official: "Official", differing: "list[Difference]", tools: "list[Tool]"
) -> dict[str, Any]:
    """Its part of --json."""
    return {
        **asdict(official),
        "differences": [asdict(item) for item in differing],
        "tools": [asdict(tool) for tool in tools],
    }


def page(report: Report) -> str:
    """One self-contained HTML file."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("validate.html.j2").render(
        report=report,
        summary=summary(report),
        findings=[(found, place(found), codes()[found.code]) for found in ordered(report)],
        columns=COLUMNS,
        rows=_cells(report),
    )


def _cells(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            f"{row.division}/{row.submitter}/{row.system}",
            row.model,
            row.scenario,
            "" if row.result is None else f"{row.result:g}",
            row.units,
            row.accuracy,
            "hold" if row.valid else "errors",
        )
        for row in report.rows
    ]
