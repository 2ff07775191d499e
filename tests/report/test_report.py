"""The page, the JSON and the CSV of a finished experiment."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.plan.plan import Plan
from steps.report import own_page
from steps.report.figures import FEW_TICKS, logarithmic_ticks
from steps.report.frontier import FRONTIER, Frontier
from steps.report.markdown import to_markdown
from steps.report.own_report import OwnReport
from steps.report.page import render
from steps.report.summary import Trace
from steps.report.timeline import timeline
from tests import browser, synthetic
from tests.conftest import planned
from tests.programs import needs

needs_browser = needs("chromium", "chromedriver", packages="chromium chromium-driver")

SEARCH = json.dumps(
    {
        "points": [
            {"rate": 40.0, "queries": 900, "final": False, "ended": "overload", "shares": {}},
            {"rate": 31.5, "queries": 8313, "final": True, "ended": "VALID"}
            | {"shares": {"ttft": 0.4, "tpot": 0.97}},
        ],
        "between": [31.3, 31.9],
    }
)
"""The frontier of a search of two probes."""

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


OPEN = "Ray asks for no token: whoever reaches it runs programs as its user"
SLOW = "engine 1 of node 0 ran at 61 % of the speed of its equals"


def rendered(plan: Plan, home: Path) -> Path:
    synthetic.build(plan, home, degraded=[SLOW], exposed=[OPEN])
    for job in plan.jobs:
        if job.step == "performance_run" and job.key.endswith("bf16/Server"):
            (home / job.output).with_name(FRONTIER).write_text(SEARCH, encoding="utf-8")
    synthetic.package(plan, home)
    return synthetic.report(plan, home)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = planned("precision=bf16,fp8", "system.fields.system_name='Re<b>prise'")
    return rendered(plan, tmp_path_factory.mktemp("experiment"))


def test_the_page_says_what_engines_made_of_their_settings(made: Path) -> None:
    text = (made / "index.html").read_text(encoding="utf-8")
    for said in (
        "arguments.async_scheduling: True was asked for, the engine has False",
        "128 tokens",
        "60 UnquantizedLinearMethod",
        "1 read, 1 unread (VLLM_FP8_PADDING); 41 of the shell",
    ):
        assert said in text, said
    (first, *_) = json.loads((made / "summary.json").read_text(encoding="utf-8"))["cells"]
    assert first["resolved"]["attention"] == "CPU_ATTN" and first["dropped_variables"] == 41


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
    plan = planned("scenario=Server")
    texts = contents(rendered(plan, tmp_path))
    assert contents(synthetic.report(plan, tmp_path)) == texts


def contents(folder: Path) -> dict[str, str]:
    """Bokeh numbers its objects through a process, and every real report is a process."""
    numbers = re.compile(r"\bp[0-9]{4,}\b")
    return {path.name: numbers.sub("p", path.read_text("utf-8")) for path in folder.iterdir()}


def test_compression_is_shown_with_intervals_sizes_and_importance(tmp_path: Path) -> None:
    plan = planned("compression=none,depth33-measured", "precision=fp8", "scenario=Offline")
    made = rendered(plan, tmp_path)
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
        ["| none fp8", "quantize", "99.18 %", "98.48 %", "99.78 %", "98.00 %"],
        ["| depth33-measured", "prune", "9.02 %", "8.32 %", "9.62 %", "any"],
        ["| depth33-measured fp8", "quantize", "99.18 %", "98.48 %", "99.78 %", "any"],
    ]
    assert json.loads((made / "summary.json").read_text(encoding="utf-8"))["cells"]


def test_without_compression_there_is_no_word_of_it(tmp_path: Path) -> None:
    made = rendered(planned("scenario=Offline"), tmp_path)
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


def test_a_slow_engine_and_an_open_cluster_are_named_beside_the_results(made: Path) -> None:
    for sentence in (SLOW, OPEN):
        assert sentence in (made / "index.html").read_text(encoding="utf-8")
        assert sentence in (made / "summary.md").read_text(encoding="utf-8")


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
        assert (float(row["value"]), row["unit"]) == (cell["value"], cell["unit"])
        assert bool(row["ttft_p99_ms"]) == (cell["scenario"] != "Offline")


def test_a_full_rehearsal_is_not_warned_about(tmp_path: Path) -> None:
    page = Page()
    directory = rendered(planned("experiment=rehearsal-full"), tmp_path)
    page.feed((directory / "index.html").read_text(encoding="utf-8"))
    assert "May not be submitted" not in page.text
    assert "Complete:" in page.text


def trace(step: str, key: str, started: str, finished: str) -> Trace:
    digests = {"manifest": "m", "manifest_sha256": "0", "code_sha256": "0"}
    day = "2026-11-25T"
    times = {"started": f"{day}{started}+00:00", "finished": f"{day}{finished}+00:00"}
    return Trace(step=step, key=key, inputs={}, image=None, **digests, **times)


def test_the_timeline_is_of_the_last_command_that_measured() -> None:
    traces = [
        trace("environment", "cpu", "08:00:00", "08:02:00"),
        trace("accuracy_run", "s/b/none/bf16/Server", "10:00:00", "10:05:00"),
        trace("accuracy_check", "s/b/none/bf16/Server", "10:05:00", "10:05:00"),
        trace("compliance_run", "s/b/none/bf16/Server/TEST06", "10:10:00", "10:12:30"),
        trace("submission", "package", "15:00:00", "15:00:02"),
    ]
    chart = timeline(traces, {"s/b/none/bf16/Server": "Server"})
    assert chart is not None
    assert chart.description == (
        "2 steps in 12.5 minutes: accuracy run Server 300 s, compliance run Server TEST06 150 s"
    )
    assert "2 of another time" in chart.caption
    assert timeline(traces[2:3], {}) is None


@pytest.mark.long
def test_500_results_stay_below_5_mb_and_their_markdown_fits_a_comment(made: Path) -> None:
    report = OwnReport.model_validate_json((made / "summary.json").read_text(encoding="utf-8"))
    numbered = [(f"machine-{n}", cell) for n in range(84) for cell in report.cells][:500]
    cells = [
        cell.model_copy(
            update={
                "key": f"{name}/{cell.key}",
                "system": name,
                "axes": {**cell.axes, "system": name},
            }
        )
        for name, cell in numbered
    ]
    many = report.model_copy(
        update={
            "cells": cells,
            "partners": [report.partners[0]] * len(cells),
            "systems": {name: report.systems["rehearsal-cpu"] for name, _ in numbered},
            "provenance": report.provenance * 40,
            "departures": {"a rule": tuple(cell.key for cell in cells[1:])},
        }
    )
    inputs = {f"{c.key}/performance_run": made / c.evidence["configuration"] for c in cells}
    page = own_page.build(many, inputs, "a source")
    html = render(page)
    assert html.count("<tr>") > 2000
    assert len(html.encode()) < 5_000_000
    assert "The first 40 of 500; the table has all." in html
    assert len(to_markdown(page)) < 65_536


# ---- in Chromium -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def window(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.look(1280, "light")
        opened.open(made / "index.html")
        yield opened


@needs_browser
def test_it_opens_from_disk_without_errors_or_requests(window: browser.Browser) -> None:
    assert window.run("return document.readyState") == "complete"
    assert [entry for entry in window.logged("browser") if entry["level"] == "SEVERE"] == []
    assert window.requests() == []
    assert window.run("return document.querySelectorAll('.bk-Figure').length") >= 5


@needs_browser
def test_results_sort_by_keyboard(window: browser.Browser) -> None:
    window.run('document.querySelector("#performance-table th button").focus()')
    for expected in (["bf16"] * 3 + ["fp8"] * 3, ["fp8"] * 3 + ["bf16"] * 3):
        window.press("Enter")
        found = window.run(
            'return [...document.querySelectorAll("#performance-table tbody tr")]'
            '.map((row) => row.cells[0].firstChild.textContent.split(" ")[0])'
        )
        assert found == expected


@needs_browser
def test_provenance_filters_by_step(window: browser.Browser) -> None:
    shown = window.run(
        """
        const box = document.querySelector("#provenance-table");
        box.closest("details").open = true;
        const menu = box.querySelector("select");
        menu.value = "accuracy_run";
        menu.dispatchEvent(new Event("input", { bubbles: true }));
        return [...box.querySelectorAll("tbody tr:not([hidden])")]
          .map((row) => row.cells[0].textContent);
        """
    )
    assert shown == ["accuracy_run"] * 6


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
    back = window.run("return getComputedStyle(document.body).backgroundColor")
    for name, least in (("body", 7), (".soft", 4.5), (".good", 4.5), (".bad", 4.5)):
        colour = window.run(f"return getComputedStyle(document.querySelector('{name}')).color")
        assert browser.contrast(colour, back) >= least
    if folder := os.environ.get("REPRISE_SCREENSHOTS"):
        height = window.run("return document.documentElement.scrollHeight")
        window.screenshot(Path(folder) / f"own-{width}-{scheme}.png", height)


@needs_browser
def test_paper_gets_the_folded_parts(window: browser.Browser) -> None:
    window.run("dispatchEvent(new Event('beforeprint'))")
    assert window.run("return document.querySelectorAll('details:not([open])').length") == 0
    window.run("dispatchEvent(new Event('afterprint'))")
    assert window.run("return document.querySelectorAll('details:not([open])').length") > 0


def test_the_frontier_of_a_search_is_on_the_page_of_its_run(made: Path) -> None:
    html = (made / "index.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert page.text.count("Latency frontier of") == 1
    assert "31.5 queries a second: TTFT 40 % and TPOT 97 % of the limits, VALID" in html


def test_a_damaged_frontier_is_named(tmp_path: Path) -> None:
    (tmp_path / FRONTIER).write_text('{"points": []}', encoding="utf-8")
    with pytest.raises(UserError, match=f"{FRONTIER} is damaged .between"):
        Frontier.beside(tmp_path)


@given(st.floats(0.01, 1e5), st.floats(1.5, 1e6))
def test_a_logarithmic_axis_has_numbers_over_its_whole_length(low: float, times: float) -> None:
    ticks = logarithmic_ticks(low, low * times)
    powers = [tick for tick in ticks if math.log10(tick).is_integer()]
    assert len(ticks) <= max(FEW_TICKS, len(powers))
    assert all(low <= tick <= low * times for tick in ticks)
    if times >= 10:
        edges = [low, *ticks, low * times]
        assert max(b / a for a, b in pairwise(edges)) <= 10.001
    if 3 <= times <= 1000:  # no half of the axis is without a number, and no two touch
        places = [math.log(tick / low) / math.log(times) for tick in ticks]
        assert max(b - a for a, b in pairwise([0, *places, 1])) <= 0.5
        assert min(b - a for a, b in pairwise(places)) >= 0.05


def unfinished(plan: Plan, home: Path) -> Page:
    """One cell that isn't valid, one whose accuracy run was killed, one that was never run."""
    synthetic.build(plan, home)
    synthetic.invalid(plan, home, "Server")
    died = "error: accuracy_run: its process was ended by SIGKILL"
    synthetic.gone(plan, home, "accuracy_run", "Offline", died)
    for step in ("performance_run", "accuracy_run", "compliance_run"):
        synthetic.gone(plan, home, step, "Interactive")
    page = Page()
    page.feed((synthetic.report(plan, home) / "index.html").read_text(encoding="utf-8"))
    return page


def test_a_page_is_made_of_whatever_there_is(tmp_path: Path) -> None:
    plan = planned()
    page = unfinished(plan, tmp_path)
    assert page.open == []
    text = " ".join(page.text.split())
    assert "0 of 3 cells are valid." in text
    for state in ("✗ INVALID", "✗ failed", "missing"):
        assert state in text
    assert "p99 TTFT is 4056.2 ms, the limit of Server is 2000 ms" in text
    assert "./reproduce again Server" in text and "ended by SIGKILL" in text
    assert "Runs that are not valid" in text
    made = tmp_path / "made"
    states = json.loads((made / "summary.json").read_text(encoding="utf-8"))["states"]
    assert [state["parts"][0]["state"] for state in states] == ["valid", "invalid", "due"]
    rows = list(csv.DictReader((made / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["state"] for row in rows] == ["failed", "invalid", "due"]
    assert "**0 of 3 cells are valid.**" in (made / "summary.md").read_text(encoding="utf-8")


def test_a_page_of_nothing_is_a_page(tmp_path: Path) -> None:
    plan = planned()
    page = Page()
    page.feed((synthetic.report(plan, tmp_path) / "index.html").read_text(encoding="utf-8"))
    assert "0 of 3 cells are valid." in page.text and "not measured yet" in page.text
