"""The section of own results: rates, latencies against their limits, and where each is logged."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from steps.base.record import Manifest
from steps.config import verdicts
from steps.config.verdicts import PerformanceVerdict
from steps.mlperf.loadgen import SAMPLES_FILE, USER_CONF
from steps.report import latency_charts
from steps.report.blocks import (
    Block,
    Cell,
    Chart,
    Column,
    Section,
    Table,
    Text,
    number,
    of_limit,
    share,
    too_long,
)
from steps.report.comparison.partner import PartnerVerdict
from steps.report.comparison_charts import SHORT, Rate, throughput
from steps.report.frontier import Frontier
from steps.report.points import Points
from steps.report.summary import CellResult, Latency, Summary
from steps.report.window_charts import window_blocks

MOST_NAMED = 20
"""Slow engines; a page's Markdown has to fit a comment."""


def performance_section(
    points: Points, inputs: Mapping[str, Path], partners: Sequence[PartnerVerdict]
) -> Section:
    """The table of results, then rates beside AMD's and latencies against their limits."""
    columns = [
        *points.columns(),
        Column("result", numeric=True),
        Column("unit"),
        Column("samples/s", numeric=True),
        Column("target_qps", numeric=True),
        Column("p99 TTFT, ms", numeric=True),
        Column("TTFT left", numeric=True),
        Column("p99 TPOT, ms", numeric=True),
        Column("TPOT left", numeric=True),
        Column("run, s", numeric=True),
        Column("evidence"),
    ]
    rows = [
        [
            *points.row(cell),
            number(cell.value, href=cell.evidence["performance log"]),
            Cell(cell.unit),
            number(cell.samples_per_second, 2, href=cell.evidence["detail log"]),
            number(cell.target_qps, href=cell.evidence[USER_CONF]),
            *_latency(cell.ttft, cell.evidence["detail log"]),
            *_latency(cell.tpot, cell.evidence["detail log"]),
            number(cell.duration_s, 0, href=cell.evidence["detail log"]),
            Cell("configuration", href=cell.evidence["configuration"]),
        ]
        for cell in points.cells
    ]
    blocks: list[Block] = [
        Table("performance-table", "One row a result", columns, rows, too_long(rows)),
        *_named(points),
        throughput(_rates(points, partners)),
        *_distributions(points, inputs),
        *_windows(points, inputs),
        *_frontiers(points, inputs),
    ]
    lead = (
        f"{points.shared} Numbers link to the log they are from, each row to its configuration; "
        "latencies stand beside their limits."
    )
    return Section("performance", "Performance", lead.strip(), blocks)


def _named(points: Points) -> list[Block]:
    """Engines that were no match for their equals: the system is faster than these results. And
    what of a run others on the network could reach."""
    found = [
        f"{points.label(cell) or cell.scenario}: {what}."
        for cell in points.cells
        for what in (*cell.degraded, *cell.exposed)
    ]
    more = len(found) - MOST_NAMED
    rest = [f"And {more} more; the results' manifests have all."] if more > 0 else []
    return [Text([*found[:MOST_NAMED], *rest])] if found else []


def _latency(latency: Latency | None, href: str) -> list[Cell]:
    if latency is None:
        return [Cell("–"), Cell("–")]
    left = latency.headroom
    return [of_limit(latency.p99_ms, latency.limit_ms, href=href), share(left, 0)]


def _rates(points: Points, partners: Sequence[PartnerVerdict]) -> list[Rate]:
    """Own results, and below them AMD's results for comparison."""
    own = [
        Rate(
            points.label(cell, without="scenario") or cell.system,
            cell.scenario,
            cell.value,
            cell.unit,
        )
        for cell in points.cells
        if cell.value > 0
    ]
    published = {
        verdict.reference.link: Rate(
            f"AMD's {verdict.gpu} {verdict.model} {verdict.precision[:SHORT]}",
            verdict.scenario,
            verdict.reference.value,
            verdict.unit,
        )
        for verdict in partners
        if verdict.reference is not None
    }
    return [*own, *published.values()]


def unfinished_section(summary: Summary, inputs: Mapping[str, Path]) -> list[Section]:
    """Latencies of runs that aren't valid: where they left their limits. None without such runs."""
    runs: dict[str, list[latency_charts.Run]] = {name: [] for name in TITLES}
    for cell in summary.states:
        path = inputs.get(f"{cell.key}/performance_check")
        performance = next(part for part in cell.parts if part.name == "performance")
        if path is None or performance.state != "invalid":
            continue
        verdict = verdicts.read(path, PerformanceVerdict)
        run = inputs[f"{cell.key}/performance_run"]
        times = latency_charts.read_latencies(Manifest.read(run).file(SAMPLES_FILE))
        label, limits = f"{cell.axes['scenario']} (INVALID)", verdict.limits
        if verdict.ttft_ms is not None:
            runs["ttft"].append(latency_charts.Run(label, times.ttft_ms, limits.ttft_ms))
            runs["tpot"].append(latency_charts.Run(label, times.tpot_ms, limits.tpot_ms))
    watched = (
        (
            f"{cell.axes['scenario']} (INVALID)",
            Manifest.read(inputs[f"{cell.key}/performance_run"]),
            verdicts.read(
                inputs[f"{cell.key}/performance_check"], PerformanceVerdict
            ).limits.ttft_ms,
        )
        for cell in summary.states
        if cell.parts[0].state == "invalid"
    )
    blocks: list[Block] = [*_charts(runs), *window_blocks(watched)]
    if not blocks:
        return []
    lead = "Of runs that aren't valid: these are no results, but they show what went wrong."
    return [Section("invalid", "Runs that are not valid", lead, blocks)]


TITLES = {"ttft": "Time to first token", "tpot": "Time per output token"}


def _charts(runs: Mapping[str, list[latency_charts.Run]]) -> list[Chart]:
    return [
        latency_charts.distribution(TITLES[name], name.upper(), found)
        for name, found in runs.items()
        if any(len(run.values_ms) for run in found)
    ]


def _distributions(points: Points, inputs: Mapping[str, Path]) -> list[Chart]:
    found: dict[str, list[latency_charts.Run]] = {"ttft": [], "tpot": []}
    for cell in points.cells:
        if cell.ttft is None or cell.tpot is None:
            continue
        times = latency_charts.read_latencies(_samples(cell, inputs))
        label = points.label(cell)
        found["ttft"].append(latency_charts.Run(label, times.ttft_ms, cell.ttft.limit_ms))
        found["tpot"].append(latency_charts.Run(label, times.tpot_ms, cell.tpot.limit_ms))
    return _charts(found)


def _windows(points: Points, inputs: Mapping[str, Path]) -> list[Block]:
    return window_blocks(
        (
            points.label(cell),
            Manifest.read(inputs[f"{cell.key}/performance_run"]),
            cell.ttft.limit_ms if cell.ttft else None,
        )
        for cell in points.cells
    )


def _frontiers(points: Points, inputs: Mapping[str, Path]) -> list[Chart]:
    """Frontiers of the results whose rate ./reproduce tune has found."""
    found = [
        (cell, Frontier.beside(inputs[f"{cell.key}/performance_run"].parent))
        for cell in points.cells
    ]
    return [
        latency_charts.frontier_chart(points.label(cell), frontier)
        for cell, frontier in found
        if frontier
    ]


def _samples(cell: CellResult, inputs: Mapping[str, Path]) -> Path:
    return Manifest.read(inputs[f"{cell.key}/performance_run"]).file(SAMPLES_FILE)
