"""Charts of accuracy: metrics against the gates, and what precision and pruning cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bokeh.models import Range1d, Span

from steps.report.blocks import Chart
from steps.report.figures import (
    EDGE,
    LIMIT_COLOUR,
    MOST_LINES,
    ROW,
    first_of,
    plain_figure,
    plain_legend,
    rates_figure,
    scatter,
)


@dataclass(frozen=True)
class Point:
    """A result in the trade-off; `lowest` is its worst metric over the reference's, a share."""

    kind: str
    value: float
    unit: str
    lowest: float


def gates(measured: Mapping[str, Mapping[str, float]]) -> Chart | None:
    """Every accuracy metric over the reference's against 99 and 99.9 %, by result and metric.

    None without any.
    """
    if not measured:
        return None
    count, measured = len(measured), dict(list(measured.items())[:MOST_LINES])
    names = list(dict.fromkeys(name for shares in measured.values() for name in shares))
    labels = list(measured)[::-1]
    values = [100 * value for shares in measured.values() for value in shares.values()]
    plot = plain_figure(
        "% of the reference",
        "",
        y_range=labels,
        x_range=Range1d(min(98.5, *values) - 0.3, max(100.5, *values) + 0.3),
        height=EDGE + ROW * len(labels),
    )
    for index, name in enumerate(names):
        of = {label: 100 * shares[name] for label, shares in measured.items() if name in shares}
        scatter(
            plot,
            index,
            name,
            x=list(of.values()),
            y=list(of),
            words=[f"{name} {value:.2f} %" for value in of.values()],
        )
    for gate in (99.0, 99.9):
        plot.add_layout(
            Span(location=gate, dimension="height", line_color=LIMIT_COLOUR, line_dash="dashed")
        )
    plain_legend(plot)
    lowest = "; ".join(
        f"{label} {100 * min(shares.values()):.2f} %" for label, shares in measured.items()
    )
    return Chart(
        "Accuracy against the gates",
        "Dashed: 99 % and 99.9 %, the gates of the closed division. Right of a line passes it."
        + first_of(count),
        f"lowest metric of each: {lowest}",
        plot,
    )


def trade_offs(points: Sequence[Point]) -> Chart | None:
    """Throughput and the lowest accuracy metric, by kind; None if there is only one kind."""
    kinds: dict[str, list[Point]] = {}
    for point in points:
        kinds.setdefault(point.kind, []).append(point)
    if len(kinds) < 2:
        return None
    rates = [point.value for point in points]
    lowest = [100 * point.lowest for point in points]
    plot = rates_figure(
        points[0].unit,
        rates,
        "lowest metric, %",
        y_range=Range1d(min(98.5, *lowest) - 0.4, max(100.5, *lowest) + 0.4),
        height=380,
    )
    for gate in (99.0, 99.9):
        plot.add_layout(
            Span(location=gate, dimension="width", line_color=LIMIT_COLOUR, line_dash="dashed")
        )
    words = {kind: [_words(point) for point in ones] for kind, ones in kinds.items()}
    for index, (kind, ones) in enumerate(kinds.items()):
        scatter(
            plot,
            index,
            kind,
            x=[point.value for point in ones],
            y=[100 * point.lowest for point in ones],
            words=words[kind],
        )
    plain_legend(plot)
    return Chart(
        "Throughput and accuracy: precision and pruning",
        "Offline. Up and right is better. Dashed: 99 % and 99.9 % of the reference model; the open "
        "division has no gate.",
        "; ".join(f"{kind}: {', '.join(texts)}" for kind, texts in words.items()),
        plot,
    )


def _words(point: Point) -> str:
    return f"{point.value:,.10g} {point.unit} at {100 * point.lowest:.2f} %"
