"""The chart of when each step ran."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from bokeh.models import ColumnDataSource, HoverTool, Range1d

from steps.plan.registry import STEPS
from steps.report.blocks import Chart
from steps.report.figures import (
    COLOURS,
    EDGE,
    MOST_LINES,
    ROW,
    first_of,
    plain_figure,
    plain_legend,
)
from steps.report.summary import Trace

SHOWN_S = 1.0
"""Shorter steps would be invisible."""

PAUSE_S = 1800.0
"""A pause longer than this: earlier steps belong to another command."""

MOST_LABEL = 34
"""Characters that leave room for the bars on a phone."""


def timeline(traces: Sequence[Trace], labels: Mapping[str, str]) -> Chart | None:
    """Steps of the last command that ran something, in minutes; None if all steps were short.

    `labels` are words for the keys of results; keys of artifacts are shown as they are. Steps on
    the other side of a pause are counted in the caption and aren't part of the axis.
    """
    begun = sorted((t for t in traces if t.seconds >= SHOWN_S), key=_start)
    recent = _session(begun)
    if not recent:
        return None
    shown = recent[:MOST_LINES]
    origin = _start(shown[0])
    lines = range(len(shown) - 1, -1, -1)  # the first on top
    plot = plain_figure(
        "minutes",
        "",
        y_range=Range1d(-0.7, len(shown) - 0.3),
        x_range=Range1d(0, (max(map(_end, shown)) - origin) / 60 * 1.02),
        height=EDGE + ROW * len(shown),
    )
    plot.yaxis.ticker = list(lines)
    plot.yaxis.major_label_overrides = {
        line: _label(trace, labels) for line, trace in zip(lines, shown, strict=True)
    }
    plot.ygrid.visible = False
    stages = list(dict.fromkeys(STEPS[trace.step].stage for trace in shown))
    for colour, stage in zip(COLOURS, stages, strict=False):
        of = [(n, t) for n, t in zip(lines, shown, strict=True) if STEPS[t.step].stage == stage]
        source = ColumnDataSource(
            {
                "line": [line for line, _ in of],
                "left": [(_start(trace) - origin) / 60 for _, trace in of],
                "right": [(_end(trace) - origin) / 60 for _, trace in of],
                "words": [f"{t.step} {t.key}: {t.seconds:,.0f} s" for _, t in of],
            }
        )
        bars = plot.hbar(
            y="line",
            left="left",
            right="right",
            height=0.6,
            color=colour,
            source=source,
            legend_label=stage,
        )
        plot.add_tools(HoverTool(renderers=[bars], tooltips="@words"))
    plain_legend(plot)
    others = len(begun) - len(recent)
    minutes = (max(map(_end, shown)) - origin) / 60
    return Chart(
        "Timeline",
        f"Steps of {SHOWN_S:.0f} s and more."
        + (f" {others} of another time are in the table of provenance." if others else "")
        + first_of(len(recent)),
        f"{len(shown)} steps in {minutes:,.1f} minutes: "
        + ", ".join(f"{_label(trace, labels)} {trace.seconds:,.0f} s" for trace in shown),
        plot,
    )


def _session(begun: Sequence[Trace]) -> list[Trace]:
    """The last stretch without a pause that has a LoadGen run, else the last."""
    sessions: list[list[Trace]] = []
    ended = float("-inf")
    for trace in begun:
        if _start(trace) - ended > PAUSE_S:
            sessions.append([])
        sessions[-1].append(trace)
        ended = max(ended, _end(trace))
    with_runs = [s for s in sessions if any(STEPS[t.step].stage == "runs" for t in s)]
    return next(iter([*with_runs[::-1], *sessions[::-1]]), [])


def _label(trace: Trace, labels: Mapping[str, str]) -> str:
    of = next((word for key, word in labels.items() if f"{trace.key}/".startswith(f"{key}/")), None)
    rest = "" if of is None else trace.key.rpartition("/")[2] if trace.key not in labels else ""
    words = " ".join(filter(None, (trace.step.replace("_", " "), of or trace.key, rest)))
    return words if len(words) <= MOST_LABEL else f"{words[: MOST_LABEL - 1]}…"


def _start(trace: Trace) -> float:
    return datetime.fromisoformat(trace.started).timestamp()


def _end(trace: Trace) -> float:
    return datetime.fromisoformat(trace.finished).timestamp()
