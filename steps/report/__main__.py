"""Render the page, Markdown, CSV and JSON of an experiment from its manifests."""

from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.record import Workspace
from steps.base.step import main
from steps.config.submission import ReportConfig
from steps.report import own_page, own_report
from steps.report.claims import model
from steps.report.markdown import to_markdown
from steps.report.page import render
from steps.report.summary import summarize


def step(
    config: ReportConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes four files; the same inputs give the same bytes."""
    found = own_report.compared(summarize(config, inputs, workspace.directory))
    page = own_page.build(found, inputs, model.load().source)
    for name, text in (
        ("summary.json", own_report.to_json(found)),
        ("summary.csv", own_report.to_csv(found)),
        ("summary.md", to_markdown(page)),
        ("index.html", render(page)),
    ):
        (workspace.directory / name).write_text(text, encoding="utf-8")
    workspace.result = {
        "may_be_submitted": found.may_be_submitted,
        "values": {cell.key: f"{cell.value:,.10g} {cell.unit}" for cell in found.cells},
        "partners": {
            cell.key: verdict.verdict
            for cell, verdict in zip(found.cells, found.partners, strict=True)
        },
    }


if __name__ == "__main__":
    main("report", ReportConfig, step)
