"""The published submission's page: its numbers, and how it behaves in a real browser."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.mlperf.published import table
from steps.report import published
from steps.report.claims import model
from steps.report.comparison import tolerances
from steps.report.comparison.partner import without_twins
from steps.report.comparison_charts import run_label
from steps.report.page import render
from tests import browser
from tests.conftest import ROOT
from tests.mlperf.test_published import GOLDEN
from tests.programs import needs
from tests.report.test_report import Page

needs_browser = needs("chromium", "chromedriver", packages="chromium chromium-driver")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made as `./reproduce report --published` makes it: by a process of its own."""
    return page_of("v5.1", tmp_path_factory.mktemp("published"))


def page_of(round_name: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "steps.report.published", "--output", str(folder)]
    done = subprocess.run(
        [*command, "--round", round_name], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def made_v6(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of("v6.0", tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def window(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.look(1280, "light")
        opened.open(made / "index.html")
        yield opened


def test_amds_24_results_are_those_of_mlcommons_in_every_format(made: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    summary = json.loads((made / "summary.json").read_text(encoding="utf-8"))
    assert {r["location"]: [r["value"], r["unit"]] for r in summary["results"]} == golden
    rows = list(csv.DictReader(io.StringIO((made / "summary.csv").read_text(encoding="utf-8"))))
    assert {row["location"]: [float(row["value"]), row["unit"]] for row in rows} == golden
    page = Page()
    page.feed((made / "index.html").read_text(encoding="utf-8"))
    markdown = (made / "summary.md").read_text(encoding="utf-8")
    for location, (value, _) in golden.items():
        address = f"https://github.com/mlcommons/inference_results_v5.1/tree/main/{location}"
        assert address in page.links
        assert f"{value:,.10g}" in page.text
        assert f"[{value:,.10g}]({address})" in markdown


def test_amds_19_results_of_v6_are_on_its_page(made_v6: Path) -> None:
    with (ROOT / "tests/golden/v6.0-rows.csv").open(encoding="utf-8", newline="") as stream:
        golden = [row for row in csv.DictReader(stream) if row["submitter"] == "AMD"]
    summary = json.loads((made_v6 / "summary.json").read_text(encoding="utf-8"))
    results = {
        (r["platform"], r["benchmark"], r["scenario"]): r["value"] for r in summary["results"]
    }
    assert (len(results), len(golden)) == (19, 13)  # six are of one run with another
    text = Page()
    text.feed((made_v6 / "index.html").read_text(encoding="utf-8"))
    for row in golden:
        value = results[row["platform"], row["model"], row["scenario"]]
        assert value == pytest.approx(float(row["value"]), abs=1e-6)
        assert f"{value:,.10g}" in text.text
    assert "Rows that can't be compared" not in text.text
    verdicts = [one["verdict"] for one in summary["partners"] if one["difference"] is not None]
    assert (verdicts.count("within tolerance"), len(verdicts)) == (22, 23)
    scaled = {one["accelerators"] for one in summary["scaling"] if one["nodes"] > 1}
    assert scaled == {16, 24, 87, 94}
    assert "87/8 × 103,480 AMD" in text.text
    assert summary["claims"] == []


@pytest.mark.parametrize("round_name", table.rounds())
def test_every_run_of_amd_has_a_label_of_its_own(round_name: str) -> None:
    """Charts have one row a label: systems of one and of eleven nodes were one row."""
    shown = without_twins([row for row in table.load(round_name) if row.submitter == "AMD"])
    labels = Counter(map(run_label, shown))
    assert {label: count for label, count in labels.items() if count > 1} == {}


def test_accuracy_of_v6_has_every_run_with_a_reference(made_v6: Path) -> None:
    text = (made_v6 / "summary.md").read_text(encoding="utf-8")
    section = text.partition("## Accuracy, precision and pruning")[2].partition("\n## ")[0]
    for of in ("87 × MI355X llama2-70b-99.9 Server", "MI355X llama2-70b-99.9 Server"):
        assert f" {of} " in section
    for of in ("94 × MI355X gpt-oss-120b Offline", "MI355X llama3.1-405b Interactive"):
        assert f" {of} " in section


def test_the_page_is_self_contained_and_its_links_lead_somewhere(made: Path) -> None:
    page = Page()
    page.feed((made / "index.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.loaded == ["data:,"]
    assert len(page.ids) == len(set(page.ids))
    inner = {link[1:] for link in page.links if link.startswith("#")}
    assert inner <= set(page.ids)
    assert model.load().source in page.links
    assert all(link.startswith(("#", "https://")) for link in page.links)


def test_summary_comes_first_and_provenance_last(made: Path) -> None:
    page = Page()
    page.feed((made / "index.html").read_text(encoding="utf-8"))
    sections = [name for name in page.ids if f"{name}-title" in page.ids]
    assert page.ids.index("summary") < page.ids.index(sections[0])
    assert sections == [
        "results",
        "partners",
        "claims",
        "scaling",
        "accuracy",
        "all",
        "provenance",
    ]


def test_markdown_fits_a_comment(made: Path) -> None:
    assert len((made / "summary.md").read_text(encoding="utf-8")) < 65_536


def test_500_rows_stay_below_5_mb() -> None:
    rows = table.load("v5.1")
    instinct = [row for row in rows if row.gpu.startswith("MI")]
    many = [
        row.model_copy(update={"id": f"5.1-{n:04}", "location": f"{row.location}/{n}"})
        for n in range(5)
        for row in instinct
    ][:500]
    report = published.gather("v5.1", rows, model.load(), tolerances.load())
    begun = time.perf_counter()
    html = render(published.build(report, many, "a source"))
    assert html.count("<tr>") > 500
    assert len(html.encode()) < 5_000_000
    assert time.perf_counter() - begun < 30


def test_a_row_that_can_not_be_compared_is_shown_as_such() -> None:
    rows = list(table.load("v5.1"))
    broken = {"value": None, "problems": ("the result is nan, not a positive number",)}
    rows[1] = rows[1].model_copy(update=broken)
    report = published.gather("v5.1", rows, model.load(), tolerances.load())
    page = Page()
    page.feed(render(published.build(report, rows, "a source")))
    assert "Rows that can't be compared" in page.text
    assert "5.1-0001/llama2-70b-99/Offline: the result is nan" in page.text


# ---- in Chromium -------------------------------------------------------------------------------


@needs_browser
def test_it_opens_from_disk_without_errors_or_requests(window: browser.Browser) -> None:
    assert window.run("return document.readyState") == "complete"
    assert [entry for entry in window.logged("browser") if entry["level"] == "SEVERE"] == []
    assert window.requests() == []
    assert window.run("return document.querySelectorAll('.bk-Figure').length") >= 6


@needs_browser
def test_the_page_of_v6_opens_too(made_v6: Path, tmp_path: Path) -> None:
    with browser.browser(tmp_path / "profile") as window:
        window.look(1280, "light")
        window.open(made_v6 / "index.html")
        assert [entry for entry in window.logged("browser") if entry["level"] == "SEVERE"] == []
        assert window.requests() == []
        assert window.run("return document.querySelectorAll('.bk-Figure').length") >= 5
        assert set(column(window, "accelerator")) == {"MI355X"}
        assert len(column(window, "result")) == 19


COLUMN = """
const table = document.querySelector("#results-table table");
const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent);
return [...table.tBodies[0].rows].filter((row) => !row.hidden)
  .map((row) => row.cells[heads.indexOf("NAME")])
  .map((cell) => cell.dataset.sort ?? cell.textContent);
"""


def column(window: browser.Browser, name: str) -> list[str]:
    """Texts (or numbers behind them) of the visible rows of the results table."""
    found: list[str] = window.run(COLUMN.replace("NAME", name))
    return found


def focus_head(window: browser.Browser, name: str) -> None:
    window.run(
        '[...document.querySelectorAll("#results-table th button")]'
        f'.find((button) => button.textContent === "{name}").focus()'
    )


@needs_browser
def test_a_table_sorts_by_keyboard_in_both_directions(window: browser.Browser) -> None:
    focus_head(window, "result")
    window.press("Enter")
    values = [float(text) for text in column(window, "result")]
    assert values == sorted(values)
    assert len(values) == 24
    window.press("Enter")
    values = [float(text) for text in column(window, "result")]
    assert values == sorted(values, reverse=True)
    assert window.run(
        "return document.querySelector('#results-table [aria-sort]').getAttribute('aria-sort')"
    ) == ("descending")


@needs_browser
def test_rows_without_a_number_sort_last(window: browser.Browser) -> None:
    focus_head(window, "p99 TTFT, ms")
    for _ in range(2):
        window.press("Enter")
        values = column(window, "p99 TTFT, ms")
        missing = [index for index, text in enumerate(values) if text == "–"]
        assert missing == list(range(len(values) - len(missing), len(values)))


@needs_browser
def test_filters_narrow_a_table_and_say_how_far(window: browser.Browser) -> None:
    window.run(
        """
        const tools = document.querySelector("#results-table .tools");
        tools.querySelector("input").value = "mi325x server";
        tools.dispatchEvent(new Event("input"));
        """
    )
    assert set(column(window, "scenario")) == {"Server"}
    assert set(column(window, "accelerator")) == {"MI325X"}
    count = window.run("return document.querySelector('#results-table output').textContent")
    assert count == "4 of 24 rows"
    window.run(
        """
        const tools = document.querySelector("#results-table .tools");
        tools.querySelector("input").value = "";
        const menu = [...tools.querySelectorAll("label")]
          .find((label) => label.textContent.startsWith("division")).querySelector("select");
        menu.value = "open";
        tools.dispatchEvent(new Event("input"));
        """
    )
    assert set(column(window, "accelerator")) == {"MI355X"}
    window.run(
        """
        const tools = document.querySelector("#results-table .tools");
        tools.querySelectorAll("select").forEach((menu) => { menu.value = ""; });
        tools.dispatchEvent(new Event("input"));
        """
    )
    assert len(column(window, "result")) == 24


@needs_browser
def test_a_link_opens_the_claim_it_names(window: browser.Browser, made: Path) -> None:
    name = "claim-mi355x-8-nodes-linear"
    window.run(f"document.querySelector('a[href=\"#{name}\"]').click()")
    assert window.run(f"return document.getElementById('{name}').open") is True
    assert "87.09 %" in window.run(f"return document.getElementById('{name}').textContent")


@needs_browser
def test_paper_gets_everything(window: browser.Browser) -> None:
    window.run("dispatchEvent(new Event('beforeprint'))")
    assert window.run("return document.querySelectorAll('details:not([open])').length") == 0
    window.run("dispatchEvent(new Event('afterprint'))")
    assert window.run("return document.querySelectorAll('details:not([open])').length") > 20
    printed = window.devtools("Page.printToPDF", landscape=True)["data"]
    assert len(printed) > 100_000


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_and_text_is_readable(
    window: browser.Browser, made: Path, width: int, scheme: str
) -> None:
    window.look(width, scheme)
    window.open(made / "index.html")
    assert window.run("return document.documentElement.scrollWidth") <= width
    assert window.run(browser.CUT_TABLES) == []
    colours = window.run(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    )
    assert browser.contrast(*colours) >= 7
    soft = window.run(
        "return ['.soft', '.good', '.bad', 'nav a'].map((name) =>"
        " getComputedStyle(document.querySelector(name)).color)"
    )
    for colour in soft:
        assert browser.contrast(colour, colours[1]) >= 4.5
    if folder := os.environ.get("REPRISE_SCREENSHOTS"):
        height = window.run("return document.documentElement.scrollHeight")
        window.screenshot(Path(folder) / f"published-{width}-{scheme}.png", height)
