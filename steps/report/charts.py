"""Plots by Bokeh: kept, scriptable from Python, and its script embeds whole (1.3 MB) in the page.

Colours are Okabe and Ito's, told apart by colour-blind readers; text and grids are a grey that
reads on white and on black.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from bokeh.embed import components
from bokeh.models import ColumnDataSource, HoverTool, Range1d, Span
from bokeh.plotting import figure
from bokeh.resources import Resources

from steps.report.summary import CellResult, Trace

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("circle", "triangle", "square", "diamond", "inverted_triangle", "star")
GREY = "#808080"
LIMIT_COLOUR = "#D55E00"
SHOWN_S = 1.0
"""Shorter steps would be invisible in the timeline."""

POINTS = 400
"""A distribution is drawn through this many quantiles, however many samples it has."""


@dataclass(frozen=True)
class Chart:
    """A figure and the sentence that says how to read it."""

    title: str
    caption: str
    figure: figure


@dataclass(frozen=True)
class Latencies:
    """Per-sample times of one run in ms, as the system under test saw them."""

    ttft_ms: np.ndarray
    tpot_ms: np.ndarray


def script() -> str:
    """Bokeh's own script as an element, to be embedded once."""
    return str(Resources(mode="inline", components=["bokeh"]).render_js())


def embed(charts: Sequence[Chart]) -> tuple[str, list[str]]:
    """The page's script element and one HTML division per chart."""
    if not charts:
        return "", []
    code, divisions = components([chart.figure for chart in charts])
    return code, list(divisions)


def read_latencies(samples: Path) -> Latencies:
    """From a run's samples.csv; samples without a first token (Offline) are left out."""
    ttft, tpot = [], []
    with samples.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if not row["first_token_s"]:
                continue
            first, tokens = float(row["first_token_s"]), int(row["output_tokens"])
            ttft.append(1000 * (first - float(row["issued_s"])))
            tpot.append(1000 * (float(row["completed_s"]) - first) / max(1, tokens - 1))
    return Latencies(np.array(ttft), np.array(tpot))


def distribution(
    title: str, unit: str, runs: Sequence[tuple[str, np.ndarray, float | None]]
) -> Chart:
    """Share of samples at or below a latency, one curve per run, its limit as a dashed line."""
    shown = [
        v for _, values, limit_ms in runs for v in (*values, *([limit_ms] if limit_ms else ()))
    ]
    shown = [value for value in shown if value > 0]
    span = Range1d(min(shown, default=1) / 1.3, max(shown, default=10) * 1.3)
    plot = _figure(title, f"{unit}, ms", "share of samples, %", x_axis_type="log", x_range=span)
    for colour, (label, values, limit_ms) in zip(_cycle(len(runs)), runs, strict=True):
        shares = np.linspace(0, 100, min(POINTS, max(2, len(values))))
        quantiles = np.percentile(values, shares) if len(values) else shares * np.nan
        source = ColumnDataSource({"ms": quantiles, "share": shares})
        line = plot.line(
            "ms", "share", source=source, color=colour, line_width=2, legend_label=label
        )
        plot.add_tools(
            HoverTool(
                renderers=[line], tooltips=[(unit, "@ms{0.0} ms"), ("share", "@share{0.0} %")]
            )
        )
        if limit_ms is not None:
            plot.add_layout(
                Span(
                    location=limit_ms,
                    dimension="height",
                    line_color=colour,
                    line_dash="dashed",
                    line_width=2,
                )
            )
    plot.add_layout(Span(location=99, dimension="width", line_color=GREY, line_dash="dotted"))
    plot.legend.location = "top_left"
    _plain_legend(plot)
    return Chart(
        title,
        "Dashed: the limit. It holds where the curve crosses 99 % (dotted) left of it.",
        plot,
    )


def gates(cells: Sequence[CellResult]) -> Chart:
    """Every ROUGE metric over the reference's, in percent, against 99 and 99.9 %."""
    labels = [f"{cell.system} {cell.precision} {cell.scenario}" for cell in reversed(cells)]
    names = [name for name in cells[0].reference_ratios if name.startswith("rouge")]
    ratios = [100 * cell.reference_ratios[name] for cell in cells for name in names]
    low, high = min([98.5, *ratios]), max([100.5, *ratios])
    plot = _figure("Accuracy", "score over the reference's, %", "", y_range=labels)
    plot.x_range = Range1d(low - 0.2, high + 0.2)
    for colour, marker, name in zip(_cycle(len(names)), MARKERS, names, strict=False):
        plot.scatter(
            x=[100 * cell.reference_ratios[name] for cell in reversed(cells)],
            y=labels,
            color=colour,
            size=10,
            alpha=0.8,
            legend_label=name,
            marker=marker,
        )
    for gate in (99.0, 99.9):
        plot.add_layout(
            Span(location=gate, dimension="height", line_color=LIMIT_COLOUR, line_dash="dashed")
        )
    plot.height = 160 + 34 * len(labels)
    _plain_legend(plot)
    plot.add_layout(plot.legend[0], "right")
    return Chart(
        "Accuracy", "Dashed: the gates at 99 % and 99.9 %. Right of a line passes it.", plot
    )


def timeline(traces: Sequence[Trace]) -> Chart:
    """When each step ran, in minutes since the first."""
    shown = sorted((t for t in traces if t.seconds >= SHOWN_S), key=lambda t: t.started)
    origin = datetime.fromisoformat(shown[0].started)
    labels, left, right = [], [], []
    for trace in reversed(shown):
        labels.append(f"{trace.step} {trace.key}"[-48:])
        begin = (datetime.fromisoformat(trace.started) - origin).total_seconds() / 60
        left.append(begin)
        right.append(begin + trace.seconds / 60)
    unique = [f"{label}{' ' * labels[:i].count(label)}" for i, label in enumerate(labels)]
    plot = _figure("Timeline", "minutes since the first step", "", y_range=unique)
    plot.hbar(y=unique, left=left, right=right, height=0.6, color=COLOURS[0])
    plot.height = 90 + 20 * len(unique)
    return Chart(
        "Timeline", "Steps of a second and more; results of earlier runs keep their times.", plot
    )


def _figure(title: str, x_label: str, y_label: str, **options: object) -> figure:
    plot = figure(
        height=320,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        x_axis_label=x_label,
        y_axis_label=y_label,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        **options,
    )
    plot.axis.axis_label_text_color = GREY
    plot.axis.major_label_text_color = GREY
    plot.axis.axis_line_color = GREY
    plot.axis.major_tick_line_color = GREY
    plot.axis.minor_tick_line_color = None
    plot.axis.axis_label_text_font_style = "normal"
    plot.grid.grid_line_color = GREY
    plot.grid.grid_line_alpha = 0.25
    return plot


def _plain_legend(plot: figure) -> None:
    plot.legend.background_fill_alpha = 0
    plot.legend.border_line_color = None
    plot.legend.label_text_color = GREY


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
