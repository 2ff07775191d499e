"""The latency frontier: what share of its limit each tail reached, over the rate."""

from collections.abc import Sequence
from pathlib import Path

from bokeh.embed import file_html
from bokeh.models import BoxAnnotation, Span
from bokeh.resources import INLINE

from steps.record import write_atomically
from steps.report.figures import GREY, LIMIT_COLOUR, plain_figure, plain_legend, scatter
from steps.tune.measure import METRICS, Limits, Measurement
from steps.tune.request import BAND
from steps.tune.tail import Forecast

PLOT = "frontier.html"
TOP = 10.0
"""Shares of a limit beyond this are drawn at it: a queue that only grows has any latency."""


def draw(
    home: Path, probes: Sequence[Measurement], limits: Limits, forecast: Forecast | None
) -> Path:
    """Write frontier.html, which opens from disk, and return its path."""
    plot = plain_figure(
        "target_qps", "tail latency as a share of its limit", y_axis_type="log", height=420
    )
    index = 0
    for metric in METRICS:
        for final in (False, True):
            chosen = [p for p in probes if p.probe.final == final and p.ended != "overload"]
            if not chosen:
                continue
            what = "runs of the rules' length" if final else "probes"
            shares = [min(p.tail(metric) / limits.of(metric), TOP) for p in chosen]
            scatter(
                plot,
                index,
                f"{metric.upper()}, {what}",
                x=[p.probe.rate for p in chosen],
                y=shares,
                words=[_words(p) for p in chosen],
                size=14 if final else 8,
            )
            index += 1
    limit = Span(location=1, dimension="width", line_color=LIMIT_COLOUR, line_dash="dashed")
    plot.add_layout(limit)
    if forecast is not None:
        plot.add_layout(
            BoxAnnotation(
                left=forecast.limit * (1 - BAND * forecast.deviation),
                right=forecast.limit * (1 + BAND * forecast.deviation),
                fill_color=GREY,
                fill_alpha=0.2,
            )
        )
    if index:
        plain_legend(plot)
    path = home / PLOT
    write_atomically(path, file_html(plot, INLINE, "latency frontier"))
    return path


def _words(measured: Measurement) -> str:
    probe = measured.probe
    valid = {True: "VALID", False: "not valid", None: measured.ended}[measured.valid]
    return f"{probe.rate:g} qps, {len(measured.samples):,} queries, {valid}"
