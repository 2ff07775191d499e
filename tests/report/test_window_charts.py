"""What the machine did beside a run, on the page."""

import json
from pathlib import Path
from typing import Any

import pytest

from steps.base.record import Manifest, publish
from steps.config.window import Window
from steps.judge.disturbances import window_of
from steps.report.blocks import Banner, Chart, Page, Section, Text
from steps.report.page import render
from steps.report.window_charts import window_blocks
from steps.run.journal.lines import JOURNAL
from tests.run.test_journal import BOUNDS
from tests.running import run_result

HEADER = "sample_index,input_tokens,output_tokens,issued_s,first_token_s,completed_s"


def run_of(home: Path, *, journal: list[dict[str, Any]] | None, offline: bool = False) -> Manifest:
    """A published performance run of 60 s with this journal."""
    with publish(home, step="performance_run", config={}, inputs={}, code="") as workspace:
        workspace.result = run_result()
        rows = []
        for n in range(1200):
            slow = 0.9 if 26 <= n * 0.05 <= 50 else 0.2
            first = "" if offline else f"{n * 0.05 + slow}"
            rows.append(f"{n},90,28,{n * 0.05},{first},{n * 0.05 + 2 * slow}")
        (workspace.directory / "samples.csv").write_text("\n".join([HEADER, *rows]) + "\n")
        if journal is not None:
            path = workspace.directory / JOURNAL
            path.write_text("".join(json.dumps(line) + "\n" for line in journal))
            workspace.result["journal"] = {"cores": 2, "whole_s": 61.0}
    return Manifest.read(home / "manifest.json")


def lines(*, busy: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"s": float(n), "others": 1.3 if busy and 27 <= n <= 50 else 0.02, "steal": 0.0}
        for n in range(1, 62)
    ]
    if busy:
        found[11]["compiled"] = [["Triton", "/cache/a/kernel.hsaco", 11.4]]
        found.append({"step": 0, "s": 31.5, "took_s": 0.9, "times": 30.2})
    return found


def judged(run: Manifest) -> Window | None:
    return window_of(run, BOUNDS, lambda words: None)


def page_of(blocks: list[Any]) -> str:
    section = Section("performance", "Performance", "Runs.", blocks)
    return render(Page("Window", "a test", Banner("No result.", "A test."), [], [section]))


def test_a_disturbed_run_shows_what_when_and_at_what_cost(tmp_path: Path) -> None:
    busy = run_of(tmp_path / "busy", journal=lines(busy=True))
    clean = run_of(tmp_path / "clean", journal=lines(busy=False), offline=True)
    old = run_of(tmp_path / "old", journal=None)
    runs = [
        ("clean one", clean, judged(clean), None),
        ("busy one", busy, judged(busy), 1000.0),
        ("old one", old, judged(old), 1000.0),
    ]
    first, second = window_blocks(runs)
    assert isinstance(first, Chart) and isinstance(second, Chart)
    assert first.title == "Second by second: busy one", "the disturbed one comes first"
    assert (
        "From second 26 to 50 other processes took 1.3 of 2 cores; a step took 30 times its median "
        "then" in first.description
    )
    assert "From second 11 to 11 a file appeared in the cache of Triton" in first.description
    assert second.description.endswith("Nothing did.")
    above, strip = first.figure.children
    assert above.x_range is strip.x_range, "one time axis"
    assert "Second by second: busy one" in page_of([first, second])


@pytest.mark.parametrize("text", ["", "no journal\n", '{"s": 1.0, "unknown": 2}\n'])
def test_a_journal_that_cant_be_read_is_a_sentence(tmp_path: Path, text: str) -> None:
    manifest = run_of(tmp_path / "run", journal=lines(busy=False))
    path = tmp_path / "run" / JOURNAL
    found = judged(manifest)
    padded = text.ljust(path.stat().st_size, "\n")  # as long as the manifest says
    path.write_text(padded)
    (said,) = window_blocks([("Server", manifest, found, 2000.0)])
    assert isinstance(said, Text)
    assert "are unknown" in said.items[0]
