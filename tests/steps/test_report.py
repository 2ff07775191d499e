"""The page, the JSON and the CSV of a finished experiment."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from steps import schema
from steps.plan import Plan, make
from steps.record import Workspace, publish
from steps.report.__main__ import step
from tests import synthetic
from tests.conftest import ROOT

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects text, links and ids, and checks that elements close in order.

    `loaded`: what the browser would fetch by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "href", "srcset", "data", "action"):
                self.loaded.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


def rendered(plan: Plan, home: Path) -> Workspace:
    synthetic.build(plan, home)
    jobs = {job.step: job for job in plan.jobs}
    package = home / jobs["submission"].output
    departs = any(
        cell.departures
        for cell in schema.ReportConfig.model_validate_json(jobs["report"].config).cells
    )
    with publish(package.parent, step="submission", config={}, inputs={}, code="c") as workspace:
        workspace.result = {
            "division": "open",
            "submitter": "Re<b>prise",
            "may_be_submitted": not departs,
        }
    made = Workspace(home / "made")
    made.directory.mkdir()
    config = schema.ReportConfig.model_validate_json(jobs["report"].config)
    step(config, synthetic.inputs_of(plan, home, "report"), made, None)  # type: ignore[arg-type]
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = make(ROOT, ["precision=bf16,fp8"])
    return rendered(plan, tmp_path_factory.mktemp("experiment")).directory


def test_the_page_is_one_sound_file_that_needs_nothing_else(made: Path) -> None:
    html = (made / "index.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert page.open == []
    assert page.loaded == ["data:,"]  # an empty icon, so that none is looked for
    assert len(page.ids) == len(set(page.ids))
    assert len(html) < 3_000_000


def test_every_link_leads_somewhere(made: Path) -> None:
    page = Page()
    page.feed((made / "index.html").read_text(encoding="utf-8"))
    fragments = {link[1:] for link in page.links if link.startswith("#")}
    files = {link for link in page.links if not link.startswith("#")}
    assert fragments <= set(page.ids)
    assert any(link.endswith("mlperf_log_summary.txt") for link in files)
    assert [link for link in files if not (made / link).is_file()] == []


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    plan = make(ROOT, ["scenario=Server"])
    first = rendered(plan, tmp_path).directory
    texts = contents(first)
    config = schema.ReportConfig.model_validate_json(
        next(job.config for job in plan.jobs if job.step == "report")
    )
    step(config, synthetic.inputs_of(plan, tmp_path, "report"), Workspace(first), None)  # type: ignore[arg-type]
    assert contents(first) == texts


def contents(folder: Path) -> dict[str, str]:
    """Bokeh numbers its objects through a process, and every real report is a process."""
    numbers = re.compile(r"\bp[0-9]{4,}\b")
    return {path.name: numbers.sub("p", path.read_text("utf-8")) for path in folder.iterdir()}


def test_compression_is_shown_with_intervals_sizes_and_importance(tmp_path: Path) -> None:
    plan = make(ROOT, ["compression=none,depth33-measured", "precision=fp8", "scenario=Offline"])
    made = rendered(plan, tmp_path).directory
    page = Page()
    page.feed((made / "index.html").read_text(encoding="utf-8"))
    assert {"compression", "compression-table"} <= set(page.ids)
    text = (made / "summary.md").read_text(encoding="utf-8")
    assert "layers 7 to 11 were dropped" in text
    rows = [
        line.split(" | ")[:6]
        for line in text.splitlines()
        if line.startswith("| ") and "256 |" in line
    ]
    assert rows == [
        ["| none fp8", "quantize", "99.18 %", "98.40 %", "99.78 %", "98.00 %"],
        ["| depth33-measured", "prune", "9.02 %", "98.40 %", "99.78 %", "any"],
        ["| depth33-measured fp8", "quantize", "99.18 %", "98.40 %", "99.78 %", "any"],
    ]
    assert json.loads((made / "summary.json").read_text(encoding="utf-8"))["cells"]


def test_without_compression_there_is_no_word_of_it(tmp_path: Path) -> None:
    made = rendered(make(ROOT, ["scenario=Offline"]), tmp_path).directory
    page = Page()
    page.feed((made / "index.html").read_text(encoding="utf-8"))
    assert "compression" not in page.ids


def test_markdown_says_the_same_in_a_size_that_a_pull_request_takes(made: Path) -> None:
    text = (made / "summary.md").read_text(encoding="utf-8")
    assert "**May not be submitted.**" in text
    assert "1,234.5" in text
    assert "Re\\<b\\>prise" in text
    assert len(text) < 65_536
    for line in text.splitlines():
        assert line.count("|") == 0 or line.startswith("|")


def test_a_cpu_is_compared_with_nothing_and_told_why(made: Path) -> None:
    summary = json.loads((made / "summary.json").read_text(encoding="utf-8"))
    assert summary["cells"][0]["configuration"]["loadgen.target_qps"] == "80"
    text = (made / "summary.md").read_text(encoding="utf-8")
    assert "no published result matches" in text
    assert "the system has no accelerator that was published" in text


def test_the_page_shows_every_cell_and_every_departure(made: Path) -> None:
    page = Page()
    page.feed((made / "index.html").read_text(encoding="utf-8"))
    for words in ("Offline", "Server", "Interactive", "fp8 (emulated)", "1,234.5", "39.5"):
        assert words in page.text
    assert "May not be submitted" in page.text
    assert "min_duration_ms is 1,000 instead of 600,000 (6 of 6 results)" in page.text
    assert "precision is emulated" in page.text


def test_what_a_user_wrote_is_text_not_markup(made: Path) -> None:
    html = (made / "index.html").read_text(encoding="utf-8")
    assert "Re<b>prise" not in html
    assert "Re&lt;b&gt;prise" in html


def test_json_and_csv_agree(made: Path) -> None:
    summary = json.loads((made / "summary.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader(io.StringIO((made / "summary.csv").read_text(encoding="utf-8"))))
    assert summary["may_be_submitted"] is False
    assert len(summary["cells"]) == len(rows) == 6
    for cell, row in zip(summary["cells"], rows, strict=True):
        assert row["scenario"] == cell["scenario"]
        assert float(row["tokens_per_second"]) == cell["tokens_per_second"]
        assert bool(row["ttft_p99_ms"]) == (cell["scenario"] != "Offline")


def test_a_full_rehearsal_is_not_warned_about(tmp_path: Path) -> None:
    page = Page()
    directory = rendered(make(ROOT, ["experiment=rehearsal-full"]), tmp_path).directory
    page.feed((directory / "index.html").read_text(encoding="utf-8"))
    assert "May not be submitted" not in page.text
    assert "Complete:" in page.text
