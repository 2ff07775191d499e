"""Charts of own runs' latencies against their limits: curves of a few, percentiles of many."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bokeh.models import BoxAnnotation, ColumnDataSource, HoverTool, Range1d, Span

from steps.report.blocks import Chart
from steps.report.figures import (
    COLOURS,
    EDGE,
    GREY,
    LIMIT_COLOUR,
    MARKERS,
    MOST_LINES,
    ROW,
    first_of,
    plain_figure,
    plain_legend,
    scatter,
)
from steps.report.frontier import Frontier, Point

POINTS = 400
"""A distribution is drawn through this many quantiles, however many samples it has."""

SHOWN = ((50, "half of the samples"), (99, "99 % of the samples"))


@dataclass(frozen=True)
class Latencies:
    """Per-sample times of one run in ms, as the system under test saw them."""

    ttft_ms: np.ndarray
    tpot_ms: np.ndarray


@dataclass(frozen=True)
class Run:
    """One run's latencies; None without a limit."""

    label: str
    values_ms: np.ndarray
    limit_ms: float | None


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


def distribution(title: str, unit: str, runs: Sequence[Run]) -> Chart:
    """A chart of runs with samples: curves if there are enough colours, else percentiles."""
    runs = [run for run in runs if len(run.values_ms)]
    return (_curves if len(runs) <= len(COLOURS) else _percentiles)(title, unit, runs)


def _curves(title: str, unit: str, runs: Sequence[Run]) -> Chart:
    """Share of samples at or below a latency; a marker where the curve reaches 99 %."""
    plot = plain_figure(
        f"{unit}, ms, logarithmic",
        "share of samples, %",
        x_axis_type="log",
        x_range=_span(runs),
    )
    plot.add_layout(Span(location=99, dimension="width", line_color=GREY, line_dash="dotted"))
    for index, run in enumerate(runs):
        colour = COLOURS[index]
        shares = np.linspace(0, 100, min(POINTS, max(2, len(run.values_ms))))
        source = ColumnDataSource({"ms": np.percentile(run.values_ms, shares), "share": shares})
        line = plot.line(
            "ms", "share", source=source, color=colour, line_width=2, legend_label=run.label
        )
        plot.add_tools(
            HoverTool(
                renderers=[line], tooltips=[(unit, "@ms{0.0} ms"), ("share", "@share{0.0} %")]
            )
        )
        plot.scatter(
            [_percentile(run, 99)],
            [99],
            color=colour,
            marker=MARKERS[index],
            size=10,
            legend_label=run.label,
        )
        if run.limit_ms is not None:
            limit = Span(location=run.limit_ms, dimension="height", line_color=colour)
            limit.update(line_dash="dashed", line_width=2)
            plot.add_layout(limit)
    plain_legend(plot)
    return Chart(
        f"{title} against its limit",
        "Dashed, in the run's colour: its limit. It holds where the marker, at 99 % of the "
        "samples, is left of it.",
        _words(runs),
        plot,
    )


def _percentiles(title: str, unit: str, runs: Sequence[Run]) -> Chart:
    """A line for each run with its median, its 99th percentile and its limit."""
    shown = runs[:MOST_LINES]
    labels = [run.label for run in shown]
    plot = plain_figure(
        f"{unit}, ms, logarithmic",
        "",
        x_axis_type="log",
        x_range=_span(shown),
        y_range=labels[::-1],
        height=EDGE + ROW * len(labels),
    )
    for index, (percent, words) in enumerate(SHOWN):
        values = [_percentile(run, percent) for run in shown]
        texts = [f"{unit} of {words}: at most {value:,.1f} ms" for value in values]
        scatter(plot, index, words, x=values, y=labels, words=texts)
    limited = [(run.label, run.limit_ms) for run in shown if run.limit_ms is not None]
    if limited:
        scatter(
            plot,
            len(SHOWN),
            "limit",
            x=[limit for _, limit in limited],
            y=[label for label, _ in limited],
            words=[f"limit {limit:,.0f} ms" for _, limit in limited],
        )
    plain_legend(plot)
    return Chart(
        f"{title} against its limit",
        "A limit holds where 99 % of the samples are left of it." + first_of(len(runs)),
        _words(shown),
        plot,
    )


def _percentile(run: Run, percent: float) -> float:
    return float(np.percentile(run.values_ms, percent))


def _span(runs: Sequence[Run]) -> Range1d:
    """Room for every sample and every limit on a logarithmic axis."""
    values = [float(bound) for run in runs for bound in (run.values_ms.min(), run.values_ms.max())]
    values += [run.limit_ms for run in runs if run.limit_ms]
    above = [value for value in values if value > 0]
    return Range1d(min(above, default=1) / 1.3, max(above, default=10) * 1.3)


def _words(runs: Sequence[Run]) -> str:
    return "; ".join(
        f"{run.label}: half of the samples within {_percentile(run, 50):,.1f} ms, 99 % within "
        f"{_percentile(run, 99):,.1f} ms"
        + (f", limit {run.limit_ms:,.0f} ms" if run.limit_ms else "")
        for run in runs
    )


def frontier_chart(label: str, frontier: Frontier) -> Chart:
    """One mark a probe and limit; larger ones are runs of the rules' length."""
    plot = plain_figure(
        "target_qps", "tail latency as a share of its limit", y_axis_type="log", height=420
    )
    index = 0
    for metric in dict.fromkeys(name for point in frontier.points for name in point.shares):
        for final in (False, True):
            chosen = [p for p in frontier.points if p.final == final and metric in p.shares]
            if not chosen:
                continue
            scatter(
                plot,
                index,
                f"{metric.upper()}, {'runs of the full length' if final else 'probes'}",
                x=[point.rate for point in chosen],
                y=[point.shares[metric] for point in chosen],
                words=[
                    f"{point.rate:g} qps, {point.queries:,} queries, {point.ended}"
                    for point in chosen
                ],
                size=14 if final else 8,
            )
            index += 1
    limit = Span(location=1, dimension="width", line_color=LIMIT_COLOUR, line_dash="dashed")
    plot.add_layout(limit)
    if frontier.between is not None:
        low, high = frontier.between
        plot.add_layout(BoxAnnotation(left=low, right=high, fill_color=GREY, fill_alpha=0.2))
    if index:
        plain_legend(plot)
    return Chart(
        f"Latency frontier of {label}",
        "Each mark is a probe of the search for target_qps; a run is VALID if both its tails are "
        "below the dashed line. The grey band is where the limit is expected (90 %).",
        "; ".join(_reached(point) for point in frontier.points if point.final),
        plot,
    )


def _reached(point: Point) -> str:
    tails = " and ".join(f"{name.upper()} {100 * s:.0f} %" for name, s in point.shares.items())
    return f"{point.rate:g} queries a second: {tails} of the limits, {point.ended}"
