"""Charts of own runs: distributions of latencies against their limits, and the timeline."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle
from pathlib import Path

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool, Range1d, Span

from steps.report.blocks import Chart
from steps.report.figures import COLOURS, GREY, plain_figure, plain_legend
from steps.report.summary import Trace

SHOWN_S = 1.0
"""Shorter steps would be invisible in the timeline."""

POINTS = 400
"""A distribution is drawn through this many quantiles, however many samples it has."""


@dataclass(frozen=True)
class Latencies:
    """Per-sample times of one run in ms, as the system under test saw them."""

    ttft_ms: np.ndarray
    tpot_ms: np.ndarray


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
    plot = plain_figure(f"{unit}, ms", "share of samples, %", x_axis_type="log", x_range=span)
    for colour, (label, values, limit_ms) in zip(cycle(COLOURS), runs, strict=False):
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
    plain_legend(plot)
    return Chart(
        title,
        "Dashed: the limit. It holds where the curve crosses 99 % (dotted) left of it.",
        "; ".join(
            f"{label}: half of the samples within {np.percentile(values, 50):,.1f} ms, 99 % within "
            f"{np.percentile(values, 99):,.1f} ms" + (f", limit {limit:,.0f} ms" if limit else "")
            for label, values, limit in runs
            if len(values)
        ),
        plot,
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
    plot = plain_figure("minutes since the first step", "", y_range=unique)
    plot.hbar(y=unique, left=left, right=right, height=0.6, color=COLOURS[0])
    plot.height = 90 + 20 * len(unique)
    return Chart(
        "Timeline",
        "Steps of a second and more; results of earlier runs keep their times.",
        f"{len(unique)} steps in {max(right):,.1f} minutes",
        plot,
    )
