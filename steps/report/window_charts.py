"""A run's latencies second by second, and below, on the same axis, what else the machine did."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bokeh.layouts import column
from bokeh.models import ColumnDataSource, HoverTool, Range1d, Span

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config.window import Disturbance, Window
from steps.mlperf.loadgen import SAMPLES_FILE
from steps.report.blocks import Block, Chart, Text
from steps.report.figures import COLOURS, GREY, LIMIT_COLOUR, plain_figure
from steps.run.journal.lines import JOURNAL, Journal, read

BINS = 240
"""The most parts of a run in a chart; none is shorter than the journal's lines."""

MOST_RUNS = 8
"""With charts of their own: those that were disturbed come first."""

STRIP, CAUSE_ROW = 90, 22
"""Height of the strip's axes, and of one cause, in pixels."""

MARGIN = 104
"""Margin left of both, in pixels: room for a row's widest name, so that the axes align."""

WORDS = {
    "processes": "other processes",
    "steal": "hypervisor",
    "memory": "memory",
    "swap": "swap",
    "stopped": "stopped",
    "still": "nothing ran",
    "throttle": "throttled",
    "errors": "memory errors",
    "compiled": "compiled",
    "steps": "slow steps",
}


@dataclass(frozen=True)
class Times:
    """Times of each sample in s of the test: issued, first token (None: unknown), completed."""

    issued: list[float]
    first: list[float | None]
    completed: list[float]

    @property
    def end_s(self) -> float:
        return max(self.completed, default=0.0)


@dataclass(frozen=True)
class Watched:
    """A run with a journal. `ttft_limit_ms` None: it has no limit of TTFT."""

    label: str
    times: Times
    journal: Journal
    window: Window
    ttft_limit_ms: float | None


def window_blocks(runs: Iterable[tuple[str, Manifest, float | None]]) -> list[Block]:
    """Label, manifest and limit of TTFT in ms of each run; those without a journal aren't shown."""
    found: list[Watched] = []
    said: list[str] = []
    for label, manifest, limit_ms in runs:
        window = Window.of(manifest.result)
        if window is None or JOURNAL not in manifest.files:
            continue
        try:
            journal = read(manifest.directory / JOURNAL)  # its loss voids no result
        except UserError as error:
            said.append(f"{label}: {error}.")
            continue
        times = _times(manifest.file(SAMPLES_FILE))
        found.append(Watched(label, times, journal, window, limit_ms))
    shown = sorted(found, key=lambda run: run.window.clean)[:MOST_RUNS]
    rest = len(found) - len(shown)
    if rest:
        said.append(f"{rest} more runs were watched; their directories hold the journals.")
    return [*(_chart(run) for run in shown), *([Text(said)] if said else [])]


def _times(samples: Path) -> Times:
    with samples.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return Times(
        [float(row["issued_s"]) for row in rows],
        [float(row["first_token_s"]) if row["first_token_s"] else None for row in rows],
        [float(row["completed_s"]) for row in rows],
    )


def _chart(run: Watched) -> Chart:
    end_s = max(run.times.end_s, run.journal.lines[-1].s)
    span = Range1d(0, end_s)
    above = _latencies(run, span) if any(run.times.first) else _answers(run, span)
    strip = _strip(run, span)
    for plot in (above, strip):
        plot.min_border_left = MARGIN
    causes = [_capital(f"{one}.") for one in run.window.disturbances]
    said = " ".join(causes or ["Nothing did."])
    return Chart(
        f"Second by second: {run.label}",
        "Below, on the same axis: what other processes took of the cores that the run may use, and "
        f"what disturbed the run. {said}",
        f"{run.label}, {end_s:,.0f} s. {said}",
        column([above, strip], sizing_mode="stretch_width"),
    )


def _latencies(run: Watched, span: Range1d) -> Any:
    """The slowest first token of each part of the run, by when it was asked for."""
    width_s = _width_s(span.end)
    slowest: dict[int, float] = {}
    for issued, first in zip(run.times.issued, run.times.first, strict=True):
        if first is not None:
            part = int(issued / width_s)
            slowest[part] = max(slowest.get(part, 0.0), 1000 * (first - issued))
    top = 1.05 * max([1.0, *slowest.values(), run.ttft_limit_ms or 0.0])
    plot = plain_figure(
        "", "slowest time to first token, ms", x_range=span, y_range=Range1d(0, top), height=240
    )
    _bars(plot, slowest, width_s, "TTFT", "0,0", "ms")
    if run.ttft_limit_ms is not None:
        limit = Span(location=run.ttft_limit_ms, dimension="width", line_color=LIMIT_COLOUR)
        limit.update(line_dash="dashed", line_width=2)
        plot.add_layout(limit)
    return plot


def _answers(run: Watched, span: Range1d) -> Any:
    """Answers a second, where nobody waits for a first token."""
    width_s = _width_s(span.end)
    counts: dict[int, float] = {}
    for completed in run.times.completed:
        part = int(completed / width_s)
        counts[part] = counts.get(part, 0.0) + 1 / width_s
    plot = plain_figure("", "answers a second", x_range=span, height=240)
    _bars(plot, counts, width_s, "answers", "0,0.0", "a second")
    return plot


def _width_s(end_s: float) -> float:
    return float(max(math.ceil(end_s / BINS), 1))


def _bars(
    plot: Any, parts: dict[int, float], width_s: float, name: str, form: str, unit: str
) -> None:
    source = ColumnDataSource(
        {
            "left": [part * width_s for part in parts],
            "right": [(part + 1) * width_s for part in parts],
            "value": list(parts.values()),
        }
    )
    bars = plot.quad(
        left="left", right="right", bottom=0, top="value", color=COLOURS[0], source=source
    )
    tips = [("second", "@left{0}"), (name, f"@value{{{form}}} {unit}")]
    plot.add_tools(HoverTool(renderers=[bars], tooltips=tips))


def _strip(run: Watched, span: Range1d) -> Any:
    """A row for the processor time of others, and one for each cause that there is."""
    causes = list(dict.fromkeys(one.by for one in run.window.disturbances))
    rows = [*(WORDS[cause] for cause in reversed(causes)), "cores of others"]
    plot = plain_figure(
        "seconds of the test",
        "",
        x_range=span,
        y_range=Range1d(0, len(rows)),
        height=STRIP + CAUSE_ROW * len(rows),
    )
    plot.yaxis.ticker = [row + 0.5 for row in range(len(rows))]
    plot.yaxis.major_label_overrides = {row + 0.5: name for row, name in enumerate(rows)}
    plot.ygrid.visible = False
    _others(plot, run.journal, len(rows) - 1)
    for number, cause in enumerate(causes):
        _marks(
            plot,
            [one for one in run.window.disturbances if one.by == cause],
            len(causes) - 1 - number,
            COLOURS[1 + number % (len(COLOURS) - 1)],
            span.end,
        )
    return plot


def _others(plot: Any, journal: Journal, row: int) -> None:
    known = [line for line in journal.lines if line.others is not None]
    most = max([1.0, *(line.others or 0.0 for line in known)])
    starts = [0.0, *(line.s for line in journal.lines)]
    begun = dict(zip((line.s for line in journal.lines), starts, strict=False))
    source = ColumnDataSource(
        {
            "left": [begun[line.s] for line in known],
            "right": [line.s for line in known],
            "top": [row + (line.others or 0.0) / most * 0.95 for line in known],
            "others": [line.others for line in known],
        }
    )
    bars = plot.quad(left="left", right="right", bottom=row, top="top", color=GREY, source=source)
    tips = [("second", "@right{0}"), ("cores", "@others{0.00}")]
    plot.add_tools(HoverTool(renderers=[bars], tooltips=tips))


def _marks(plot: Any, found: Sequence[Disturbance], row: int, colour: str, end_s: float) -> None:
    """A disturbance has a width that is seen, however short it was."""
    least_s = end_s / 200
    source = ColumnDataSource(
        {
            "left": [one.from_s for one in found],
            "right": [max(one.to_s, one.from_s + least_s) for one in found],
            "words": [_capital(str(one)) for one in found],
        }
    )
    marks = plot.quad(
        left="left", right="right", bottom=row + 0.15, top=row + 0.85, color=colour, source=source
    )
    plot.add_tools(HoverTool(renderers=[marks], tooltips="@words"))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
