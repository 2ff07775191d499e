"""Charts of results beside published ones: throughput, partners, latencies, scaling."""

from collections.abc import Sequence
from dataclasses import dataclass

from bokeh.models import BoxAnnotation, NumeralTickFormatter, Range1d, Span

from steps.mlperf.published.result import Result
from steps.report.blocks import Chart
from steps.report.comparison.partner import PartnerVerdict
from steps.report.comparison.scaling import Scaling
from steps.report.figures import (
    COLOURS,
    EDGE,
    GREY,
    LIMIT_COLOUR,
    MOST_LINES,
    ROW,
    first_of,
    plain_figure,
    plain_legend,
    rates_figure,
    scatter,
)

SHORT = 16
"""Characters of a precision in a label: Stable Diffusion XL's is a list of several models'."""


@dataclass(frozen=True)
class Rate:
    """A result on the line `label`."""

    label: str
    scenario: str
    value: float
    unit: str


def throughput(rates: Sequence[Rate]) -> Chart:
    """A line for each label, a marker for each scenario."""
    labels = list(dict.fromkeys(rate.label for rate in rates))
    shown = [rate for rate in rates if rate.label in labels[:MOST_LINES]]
    values = [rate.value for rate in shown]
    units = ", ".join(dict.fromkeys(rate.unit for rate in shown))
    plot = rates_figure(
        units,
        values,
        "",
        y_range=labels[:MOST_LINES][::-1],
        height=EDGE + ROW * len(labels[:MOST_LINES]),
    )
    for index, scenario in enumerate(("Offline", "Server", "Interactive")):
        of = [rate for rate in shown if rate.scenario == scenario]
        if of:
            scatter(
                plot,
                index,
                scenario,
                x=[rate.value for rate in of],
                y=[rate.label for rate in of],
                words=[f"{rate.value:,.10g} {rate.unit}" for rate in of],
            )
    if shown:
        plain_legend(plot)
    return Chart(
        "Throughput by system and scenario",
        first_of(len(labels)),
        "; ".join(f"{r.label} {r.scenario} {r.value:,.10g} {r.unit}" for r in shown),
        plot,
    )


def published_rates(results: Sequence[Result]) -> list[Rate]:
    """Rates of results that can be compared, by system and benchmark."""
    return [
        Rate(system_label(result), result.scenario, result.number, result.unit)
        for result in results
        if result.comparable
    ]


def partners(verdicts: Sequence[PartnerVerdict]) -> Chart:
    """Differences from AMD's result, one line for each accelerator, benchmark and scenario."""
    groups: dict[str, list[PartnerVerdict]] = {}
    for verdict in verdicts:
        groups.setdefault(_kind(verdict), []).append(verdict)
    labels = sorted(groups)[:MOST_LINES][::-1]
    every = {
        (_kind(v), v.submitter, v.platform): 100 * v.difference
        for v in verdicts
        if not v.own and v.difference is not None
    } | {
        (label, partner.submitter, partner.platform): 100 * partner.difference
        for label, found in groups.items()
        for verdict in found
        for partner in verdict.partners
    }
    every = {place: value for place, value in every.items() if place[0] in labels}
    own = [
        (_kind(v), v.submitter, 100 * v.difference)
        for v in verdicts
        if v.own and v.difference is not None and _kind(v) in labels
    ]
    values = [*every.values(), *(value for _, _, value in own), -4.0, 4.0]
    plot = plain_figure(
        "difference, %",
        "",
        y_range=labels,
        x_range=Range1d(min(values) - 1, max(values) + 1),
        height=EDGE + ROW * len(labels),
    )
    for label in labels:
        tolerance = 100 * groups[label][0].tolerance
        plot.hbar(
            y=[label], left=-tolerance, right=tolerance, height=0.9, color=COLOURS[2], alpha=0.18
        )
    plot.add_layout(Span(location=0, dimension="height", line_color=GREY, line_width=2))
    if every:
        scatter(
            plot,
            0,
            "published partner",
            x=list(every.values()),
            y=[label for label, _, _ in every],
            words=[f"{who}, {where}: {value:+.2f} %" for (_, who, where), value in every.items()],
        )
    if own:
        scatter(
            plot,
            1,
            "this result",
            x=[value for _, _, value in own],
            y=[label for label, _, _ in own],
            words=[f"{who}: {value:+.2f} %" for _, who, value in own],
            size=13,
        )
        plain_legend(plot)
    else:
        plot.legend.visible = False
    spans = "; ".join(
        f"{label} {min(found):+.1f} to {max(found):+.1f} %"
        for label in reversed(labels)
        if (found := [value for (name, _, _), value in every.items() if name == label])
    )
    return Chart(
        "Results against AMD's",
        "The line at 0 is AMD's own result, the shaded range the tolerance; each marker a result."
        + first_of(len(groups)),
        spans,
        plot,
    )


def _kind(verdict: PartnerVerdict) -> str:
    return f"{verdict.gpu} {verdict.model} {verdict.scenario}"


def scaling(found: Sequence[Scaling]) -> list[Chart]:
    """Throughput and efficiency against nodes; colour and shape tell accelerators apart.

    Of one benchmark, the first that has a cluster: others are in the table.
    """
    benchmark = next(one.benchmark for one in found if one.nodes > 1)
    shown = [one for one in found if one.benchmark == benchmark and one.efficiency is not None]
    clusters = {_mix(one) for one in shown if one.nodes > 1}
    lines: dict[str, list[Scaling]] = {}
    for one in shown:
        if _mix(one) in clusters:
            lines.setdefault(_mix(one), []).append(one)
    if not lines:
        return []
    nodes = max(one.nodes for one in shown) + 0.5
    rate = plain_figure("nodes", shown[0].unit, x_range=Range1d(0, nodes), height=340)
    share = plain_figure(
        "nodes", "of the sum of its parts, %", x_range=Range1d(0, nodes), height=340
    )
    lowest = min(100 * (one.efficiency or 1) for one in shown)
    share.y_range = Range1d(min(80.0, lowest - 3), 103.0)
    share.add_layout(Span(location=100, dimension="width", line_color=GREY, line_dash="dashed"))
    for index, (name, ones) in enumerate(lines.items()):
        words = [f"{one.submitter}, {one.scenario}: {one.arithmetic}" for one in ones]
        x = [one.nodes for one in ones]
        scatter(rate, index, name, x=x, y=[one.value for one in ones], words=words)
        efficiencies = [100 * (one.efficiency or 0) for one in ones]
        scatter(share, index, name, x=x, y=efficiencies, words=words)
    for plot in (rate, share):
        plain_legend(plot)
    rate.y_range = Range1d(0, 1.08 * max(one.value for one in shown))
    rate.yaxis.formatter = NumeralTickFormatter(format="0,0")
    words = [
        f"{one.submitter} {one.nodes} nodes of {one.gpu} {one.scenario} "
        f"{100 * (one.efficiency or 0):.1f} %"
        for one in shown
        if one.nodes > 1
    ]
    return [
        Chart(
            f"Throughput and nodes, {benchmark}",
            "A marker a result, all scenarios; the table below has each.",
            "; ".join(words),
            rate,
        ),
        Chart(
            f"Efficiency and nodes, {benchmark}",
            "Dashed: the whole gives as much as the sum of its parts.",
            "; ".join(words),
            share,
        ),
    ]


def _mix(one: Scaling) -> str:
    """The accelerators of a system, in one order."""
    return " + ".join(sorted(part.gpu for part in one.parts)) or one.gpu


def headroom(results: Sequence[Result]) -> Chart | None:
    """99th percentiles as a share of their limits; None without any."""
    served = {
        run_label(r): r.run
        for r in results
        if r.run and r.run.ttft_p99_ms is not None and r.run.ttft_limit_ms
    }
    if not served:
        return None
    labels = list(served)[:MOST_LINES][::-1]
    plot = plain_figure(
        "p99, % of its limit",
        "",
        y_range=labels,
        x_range=Range1d(0, 110),
        height=EDGE + ROW * len(labels),
    )
    plot.add_layout(BoxAnnotation(left=100, fill_color=LIMIT_COLOUR, fill_alpha=0.15))
    plot.add_layout(
        Span(location=100, dimension="height", line_color=LIMIT_COLOUR, line_dash="dashed")
    )
    for index, (name, words) in enumerate((("ttft", "TTFT"), ("tpot", "TPOT"))):
        found = {
            label: (getattr(run, f"{name}_p99_ms"), getattr(run, f"{name}_limit_ms"))
            for label, run in served.items()
            if label in labels
            and getattr(run, f"{name}_p99_ms") is not None
            and getattr(run, f"{name}_limit_ms")
        }
        scatter(
            plot,
            index,
            words,
            x=[100 * p99 / limit for p99, limit in found.values()],
            y=list(found),
            words=[f"{words} {p99:,.1f} of {limit:,.0f} ms" for p99, limit in found.values()],
        )
    plain_legend(plot)
    return Chart(
        "Latency against its limits",
        "Shaded: beyond the limit. What is left of the dashed line is room for a higher rate. "
        "Stable Diffusion XL: the whole sample's latency." + first_of(len(served)),
        "; ".join(
            f"{label} TTFT {100 * (run.ttft_p99_ms or 0) / (run.ttft_limit_ms or 1):.0f} %"
            for label, run in list(served.items())[:MOST_LINES]
        ),
        plot,
    )


def system_label(result: Result) -> str:
    return f"{_accelerators(result)} {result.model} {result.precision[:SHORT]}"


def run_label(result: Result) -> str:
    """Tells all of a submitter's runs of a round apart, but for one that was submitted twice."""
    suffix = result.platform[-2:] if result.platform[-2:-1] == "_" else ""
    return f"{_accelerators(result)}{suffix} {result.model} {result.scenario}"


def _accelerators(result: Result) -> str:
    """ "87 × MI355X" of several nodes."""
    of = result.gpu or result.platform
    several = (result.nodes or 1) > 1 and result.accelerators
    return f"{result.accelerators} × {of}" if several else of
