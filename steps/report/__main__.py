"""Render summary.json, summary.csv and index.html from the manifests of an experiment."""

from collections.abc import Mapping
from pathlib import Path

from steps.command import main
from steps.console import Console
from steps.record import Workspace
from steps.report.page import render
from steps.report.summary import summarize, to_csv, to_json
from steps.schema import ReportConfig


def step(
    config: ReportConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes three files; the same inputs give the same bytes."""
    summary = summarize(config, inputs)
    for name, text in (
        ("summary.json", to_json(summary)),
        ("summary.csv", to_csv(summary.cells)),
        ("index.html", render(summary, inputs)),
    ):
        (workspace.directory / name).write_text(text, encoding="utf-8")
    workspace.result = {
        "may_be_submitted": summary.may_be_submitted,
        "tokens_per_second": {cell.key: cell.tokens_per_second for cell in summary.cells},
    }


if __name__ == "__main__":
    main("report", ReportConfig, step)
