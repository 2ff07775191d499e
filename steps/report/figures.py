"""Figures by Bokeh: maintained, scriptable from Python, and its script (1.3 MB) can be embedded in
the page. Colours are Okabe and Ito's, which colour-blind readers can distinguish; text and grids
are a grey that reads on white and on black.
"""

import math
import re
from collections.abc import Sequence

from bokeh.embed import components
from bokeh.models import (
    ColumnDataSource,
    FactorRange,
    FixedTicker,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
    Title,
)
from bokeh.plotting import figure
from bokeh.resources import Resources

from steps.report.blocks import Chart

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("circle", "triangle", "square", "diamond", "inverted_triangle", "star", "plus", "x")
GREY = "#808080"
LIMIT_COLOUR = "#D55E00"
ROW = 26
"""Height of one line of a chart with categories, in pixels; `EDGE` is that of its axes."""

EDGE = 110
MOST_LINES = 40
"""The most lines of a chart with one per result: more can't be distinguished, and are in the table.
"""

LEGEND_ROW = 20
SHORT_LEGEND = 3
LONG_LABEL = 20
"""Legends: entries that stand in one row, and characters of one that needs a row of its own."""


WIDE = 20.0
"""Highest over lowest rate from which on a logarithmic scale shows more."""

FEW_TICKS = 5
"""Ticks of a horizontal axis whose numbers don't touch on a phone."""

MANTISSAS = (
    (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8),
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 1.5, 2, 3, 5, 7),
    (1, 2, 3, 5),
    (1, 2, 5),
    (1, 3),
    (1,),
)
"""Steps of the numbers at a logarithmic axis: the first with few enough is used."""


def script() -> str:
    """Bokeh's own script as an element, to be embedded once."""
    return str(Resources(mode="inline", components=["bokeh"], log_level="error").render_js())


def embed(charts: Sequence[Chart]) -> tuple[str, list[str]]:
    """The page's script element and one HTML division per chart; the same charts, the same text.

    Bokeh names documents and divisions by random UUIDs, here they are numbered.
    """
    if not charts:
        return "", []
    code, divisions = components([chart.figure for chart in charts])
    texts = [code, *divisions]
    names: dict[str, str] = {}
    for uuid in UUID.findall("".join(texts)):
        names.setdefault(uuid, f"bokeh-{len(names)}")
    code, *divisions = (UUID.sub(lambda found: names[found[0]], text) for text in texts)
    return code, divisions


def first_of(count: int) -> str:
    """The caption's sentence about results beyond the lines of a chart; empty if all fit."""
    more = count > MOST_LINES
    return f" The first {MOST_LINES} of {count}; the table has all." if more else ""


def plain_figure(x_label: str, y_label: str, **options: object) -> figure:
    """The vertical axis is named above it: text on its side is hard to read, and takes a phone's
    width. A logarithmic horizontal one needs its `x_range`."""
    options.setdefault("height", 320)
    words = {"text_color": GREY, "text_font_size": "12px", "text_font_style": "normal"}
    plot = figure(
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        x_axis_label=x_label,
        title=Title(text=y_label, **words) if y_label else None,
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
    if not isinstance(plot.x_range, FactorRange):
        plot.xaxis.ticker.desired_num_ticks = FEW_TICKS
    if options.get("x_axis_type") == "log":
        plot.xaxis.formatter = NumeralTickFormatter(format="0,0.[00]")
        ticks = logarithmic_ticks(plot.x_range.start, plot.x_range.end)
        if len(ticks) > 2:
            plot.xaxis.ticker = FixedTicker(ticks=ticks)
    plot.grid.grid_line_color = GREY
    plot.grid.grid_line_alpha = 0.25
    return plot


def rates_figure(unit: str, rates: Sequence[float], y_label: str, **options: object) -> figure:
    """Rates from left to right, on a logarithmic scale if they are far apart."""
    low, high = min(rates, default=1), max(rates, default=1)
    wide = 0 < WIDE * low < high
    span = (low / 1.6, 1.6 * high) if wide else (0, 1.15 * high)
    plot = plain_figure(
        f"{unit}, logarithmic" if wide else unit,
        y_label,
        x_axis_type="log" if wide else "linear",
        x_range=Range1d(*span),
        **options,
    )
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0.[00]")
    return plot


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """At most FEW_TICKS, but for powers of ten; Bokeh's own are evenly spaced below two decades,
    and leave the lower half of the axis without a number: good for narrow spans only."""
    found: list[float] = []
    for mantissas in MANTISSAS:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = [float(f"{mantissa}e{power}") for power in powers for mantissa in mantissas]
        found = [tick for tick in every if low <= tick <= high]
        if len(found) <= FEW_TICKS:
            break
    return found


def plain_legend(plot: figure) -> None:
    """Without a box, above the plot, where it covers no data.

    Bokeh's legends don't wrap, so the columns are as many as fit a phone.
    """
    legend = plot.legend[0]
    longest = max(len(item.label.value) for item in legend.items)
    few = len(legend.items) <= SHORT_LEGEND
    # A legend takes its lines from the plot, which would be flat below a long one.
    legend.ncols = 1 if longest > LONG_LABEL else len(legend.items) if few else 2
    plot.height += LEGEND_ROW * (-(-len(legend.items) // legend.ncols) - 1)
    legend.orientation = "horizontal"
    legend.background_fill_alpha = 0
    legend.border_line_color = None
    legend.label_text_color = GREY
    legend.label_text_font_size = "12px"
    legend.padding = 2
    plot.add_layout(legend, "above")


def scatter(
    plot: figure,
    index: int,
    legend: str,
    *,
    x: Sequence[float],
    y: Sequence[object],
    words: Sequence[str],
    size: int = 10,
) -> None:
    """Markers of one series, distinguished by colour and shape, with words to hover over."""
    source = ColumnDataSource({"x": list(x), "y": list(y), "words": list(words)})
    drawn = plot.scatter(
        "x",
        "y",
        source=source,
        color=COLOURS[index % len(COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
        size=size,
        alpha=0.85,
        legend_label=legend,
    )
    plot.add_tools(HoverTool(renderers=[drawn], tooltips="@words"))
