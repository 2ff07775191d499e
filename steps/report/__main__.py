"""Render the page, Markdown, CSV and JSON of an experiment from its manifests."""

from collections.abc import Mapping
from pathlib import Path

from steps.claims import model
from steps.claims.evaluate import evaluate
from steps.command import main
from steps.comparison import tolerances
from steps.comparison.partner import judge
from steps.comparison.scaling import scaling
from steps.console import Console
from steps.published import table
from steps.record import Workspace
from steps.report import own, own_page
from steps.report.markdown import to_markdown
from steps.report.page import render
from steps.report.summary import summarize, to_csv, to_json
from steps.schema import ReportConfig


def step(
    config: ReportConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes four files; the same inputs give the same bytes."""
    summary = summarize(config, inputs, workspace.directory)
    results = own.results(summary)
    published = table.load_all()
    allowed = tolerances.load()
    partners = tuple(
        judge(result, published, allowed, own.clock(summary, cell))
        for result, cell in zip(results, summary.cells, strict=True)
    )
    ledger = model.load()
    claims = tuple(
        claim
        for claim in evaluate(ledger, published, results, allowed)
        if any(reading.own for reading in claim.readings)
    )
    found = tuple(
        one for one in scaling([*published, *results]) if one.gpu in {r.gpu for r in results}
    )
    page = own_page.build(summary, inputs, partners, claims, found, ledger.source)
    for name, text in (
        ("summary.json", to_json(summary)),
        ("summary.csv", to_csv(summary.cells)),
        ("summary.md", to_markdown(page)),
        ("index.html", render(page)),
    ):
        (workspace.directory / name).write_text(text, encoding="utf-8")
    workspace.result = {
        "may_be_submitted": summary.may_be_submitted,
        "tokens_per_second": {cell.key: cell.tokens_per_second for cell in summary.cells},
        "partners": {verdict.name: verdict.verdict for verdict in partners},
    }


if __name__ == "__main__":
    main("report", ReportConfig, step)
