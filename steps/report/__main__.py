"""`python -m steps.report PLAN DIGEST`: page, Markdown, CSV and JSON of a plan's existing results.

Run by steps/report/refresh.py in the analysis environment.
"""

import sys
from pathlib import Path

from steps import ROOT
from steps.base.errors import UserError
from steps.plan.plan import Plan, load
from steps.report import own_page, own_report
from steps.report.claims import model
from steps.report.markdown import to_markdown
from steps.report.page import render
from steps.report.refresh import PAGE, folder_of, replace
from steps.report.summary import roles, summarize


def write(plan: Plan, root: Path, folder: Path, home: Path) -> None:
    """Write four files into `folder`, with links relative to `home`; equal states, equal bytes."""
    found = own_report.compared(summarize(plan, root, home))
    page = own_page.build(found, roles(plan, root), model.load().source)
    for name, text in (
        ("summary.json", own_report.to_json(found)),
        ("summary.csv", own_report.to_csv(found)),
        ("summary.md", to_markdown(page)),
        (PAGE, render(page)),
    ):
        (folder / name).write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    path, digest = arguments
    try:
        plan = load(Path(path))
        home = folder_of(plan, ROOT)
        with replace(home, digest) as folder:
            write(plan, ROOT, folder, home)
    except UserError as error:
        print(f"error: report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
