"""A search's latency frontier, as data and as a page."""

import math
from collections.abc import Sequence
from pathlib import Path

from bokeh.embed import file_html
from bokeh.resources import INLINE

from steps.base.record import write_atomically
from steps.commands.tune.measure import METRICS, NO_TAIL, Limits, Measurement
from steps.commands.tune.request import BAND
from steps.commands.tune.tail import Forecast
from steps.report.frontier import FRONTIER, TOP, Frontier, Point
from steps.report.latency_charts import frontier_chart

PLOT = "frontier.html"


def draw(
    home: Path,
    label: str,
    probes: Sequence[Measurement],
    limits: Limits,
    forecast: Forecast | None,
) -> Path:
    """Write frontier.json and frontier.html, which opens from disk; returns the latter's path."""
    frontier = Frontier(
        points=tuple(_point(probe, limits) for probe in probes), between=_between(forecast)
    )
    write_atomically(home / FRONTIER, frontier.model_dump_json(indent=1) + "\n")
    path = home / PLOT
    write_atomically(path, file_html(frontier_chart(label, frontier).figure, INLINE, PLOT))
    return path


def _point(measured: Measurement, limits: Limits) -> Point:
    """An overloaded probe has no tail: it was ended while its queue grew."""
    shares = {m: measured.tail(m) / limits.of(m) for m in METRICS}
    if measured.ended in NO_TAIL:
        shares = {}
    return Point(
        rate=measured.probe.rate,
        queries=len(measured.samples),
        final=measured.probe.final,
        ended={True: "VALID", False: "not valid", None: measured.ended}[measured.valid],
        shares={m: min(share, TOP) for m, share in shares.items() if not math.isnan(share)},
    )


def _between(forecast: Forecast | None) -> tuple[float, float] | None:
    if forecast is None:
        return None
    wide = math.exp(BAND * forecast.deviation)
    return forecast.limit / wide, forecast.limit * wide
