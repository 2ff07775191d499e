"""The page of an experiment's own results."""

from collections.abc import Mapping
from pathlib import Path

from steps.claims.evaluate import ClaimResult
from steps.comparison.partner import PartnerVerdict
from steps.comparison.scaling import Scaling
from steps.record import Manifest
from steps.registry import STEPS
from steps.report import accuracy_charts, run_charts
from steps.report.blocks import (
    Banner,
    Block,
    Card,
    Cell,
    Chart,
    Column,
    Details,
    Flow,
    Page,
    Section,
    Table,
    Text,
    number,
    of_limit,
    share,
)
from steps.report.compression import compression_section
from steps.report.ledger import ledger_section
from steps.report.sections import partner_section, scaling_section
from steps.report.summary import CellResult, Latency, Summary

STAGES = ("artifacts", "runs", "verdicts", "submission", "report")


def build(
    summary: Summary,
    inputs: Mapping[str, Path],
    partners: tuple[PartnerVerdict, ...],
    claims: tuple[ClaimResult, ...],
    found: tuple[Scaling, ...],
    source: str,
) -> Page:
    """Summary first, then performance, accuracy, comparisons, provenance."""
    compression = compression_section(inputs)
    sections = [
        _performance(summary, inputs),
        _accuracy(summary),
        *([compression] if compression else []),
        partner_section(
            partners,
            "Every result against AMD's published one on the same accelerator, benchmark, "
            "scenario, number of nodes, division and precision, and against AMD's partners.",
        ),
        *([ledger_section(claims, source)] if claims else []),
        *([scaling_section(found)] if any(one.nodes > 1 for one in found) else []),
        _made(summary),
        _departures(summary),
    ]
    return Page(
        title=summary.experiment,
        subtitle=f"MLPerf Inference {summary.round}, {summary.division} division, "
        f"{summary.submitter} · {', '.join(summary.systems)} · not verified by MLCommons",
        banner=_banner(summary),
        cards=_cards(summary, partners),
        sections=sections,
    )


def _banner(summary: Summary) -> Banner:
    if summary.may_be_submitted:
        return Banner(
            "Complete:",
            "every run is valid, every required gate and compliance test passed, and nothing "
            "departs from the rules of the round.",
            tone="good",
        )
    count = len(summary.cells)
    return Banner(
        "May not be submitted.",
        "Every run is valid and every required gate and compliance test passed, but:",
        [f"{what} ({len(keys)} of {count} results)" for what, keys in summary.departures.items()],
    )


MOST_CARDS = 9


def _cards(summary: Summary, partners: tuple[PartnerVerdict, ...]) -> list[Card]:
    cards = [
        Card(
            " · ".join(v for axis, v in cell.axes.items() if axis not in ("benchmark", "system"))
            + (" (emulated)" if cell.emulated else ""),
            f"{cell.tokens_per_second:,.0f}",
            "tokens/s",
            cell.evidence["performance log"],
        )
        for cell in summary.cells[:MOST_CARDS]
    ]
    left = len(summary.cells) - MOST_CARDS
    if left > 0:
        cards.append(Card("and", f"{left}", "more results", "#performance"))
    cards += [
        Card(
            f"{verdict.gpu} {verdict.scenario} against AMD's",
            f"{100 * verdict.difference:+.1f} %",
            verdict.verdict,
            "#partners",
            "good" if verdict.verdict in ("within tolerance", "above tolerance") else "bad",
        )
        for verdict in partners
        if verdict.difference is not None
    ]
    return cards


def _axes(summary: Summary) -> list[Column]:
    return [Column(axis, choices=True) for axis in summary.cells[0].axes]


def _point(cell: CellResult) -> list[Cell]:
    notes = {"precision": "(emulated)" if cell.emulated else ""}
    return [Cell(value, note=notes.get(axis, "")) for axis, value in cell.axes.items()]


def _performance(summary: Summary, inputs: Mapping[str, Path]) -> Section:
    columns = [
        *_axes(summary),
        Column("tokens/s", numeric=True),
        Column("samples/s", numeric=True),
        Column("target_qps", numeric=True),
        Column("p99 TTFT, ms", numeric=True),
        Column("left", numeric=True),
        Column("p99 TPOT, ms", numeric=True),
        Column("left", numeric=True),
        Column("run, s", numeric=True),
        Column("evidence"),
    ]
    rows = [
        [
            *_point(cell),
            number(cell.tokens_per_second, href=cell.evidence["performance log"]),
            number(cell.samples_per_second, 2, href=cell.evidence["detail log"]),
            number(cell.target_qps, href=cell.evidence["user.conf"]),
            *_latency(cell.ttft),
            *_latency(cell.tpot),
            number(cell.duration_s, 0),
            Cell("configuration", href=cell.evidence["configuration"]),
        ]
        for cell in summary.cells
    ]
    blocks: list[Block] = [Table("performance-table", "One row a result", columns, rows)]
    blocks += _distributions(summary, inputs)
    lead = "Numbers link to the log they are from; latencies stand beside their limits."
    return Section("performance", "Performance", lead, blocks)


def _latency(latency: Latency | None) -> list[Cell]:
    if latency is None:
        return [Cell("–"), Cell("–")]
    left = latency.headroom
    return [of_limit(latency.p99_ms, latency.limit_ms), share(left, 0)]


def _distributions(summary: Summary, inputs: Mapping[str, Path]) -> list[Chart]:
    served = [cell for cell in summary.cells if cell.ttft and cell.tpot]
    latencies = {
        cell.key: run_charts.read_latencies(
            Manifest.read(inputs[f"{cell.key}/performance_run"]).file("samples.csv")
        )
        for cell in served
    }
    found = []
    for name, title in (("ttft", "Time to first token"), ("tpot", "Time per output token")):
        runs = [
            (
                cell.label,
                getattr(latencies[cell.key], f"{name}_ms"),
                getattr(cell, name).limit_ms,
            )
            for cell in served
        ]
        if runs:
            found.append(run_charts.distribution(title, name.upper(), runs))
    return found


def _accuracy(summary: Summary) -> Section:
    metrics = list(dict.fromkeys(name for cell in summary.cells for name in cell.scores))
    gates = list(dict.fromkeys(gate.name for cell in summary.cells for gate in cell.gates))
    tests = list(dict.fromkeys(test for cell in summary.cells for test in cell.compliance))
    columns = [
        *_axes(summary),
        *(Column(WORDS.get(name, name), numeric=True) for name in metrics),
        *(Column(f"gate {name} %: lowest ratio", numeric=True) for name in gates),
        *(Column(test) for test in tests),
    ]
    rows = [
        [
            *_point(cell),
            *(number(cell.scores.get(name), 4, href=cell.evidence["accuracy"]) for name in metrics),
            *(_gate(cell, name) for name in gates),
            *(_test(cell, test) for test in tests),
        ]
        for cell in summary.cells
    ]
    measured = {
        cell.label: {n: r for n, r in cell.reference_ratios.items() if n.startswith("rouge")}
        for cell in summary.cells
    }
    points = [
        accuracy_charts.Point(
            " ".join(v for axis, v in cell.axes.items() if axis != "scenario"),
            cell.tokens_per_second,
            "Tokens/s",
            min(measured[cell.label].values()),
        )
        for cell in summary.cells
        if cell.scenario == "Offline" and cell.tokens_per_second > 0 and measured[cell.label]
    ]
    charts = (accuracy_charts.gates(measured), accuracy_charts.trade_offs(points))
    return Section(
        "accuracy",
        "Accuracy and compliance",
        "",
        [
            Table("accuracy-table", "One row a result", columns, rows),
            *(chart for chart in charts if chart),
        ],
    )


WORDS = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "exact_match": "exact match, %",
    "tokens_per_sample": "tokens per sample",
}


def _gate(cell: CellResult, name: str) -> Cell:
    gate = next((gate for gate in cell.gates if gate.name == name), None)
    if gate is None:
        return Cell("–")
    return share(
        gate.lowest_ratio,
        2,
        tone="good" if gate.passed else "bad",
        note=("✓" if gate.passed else "✗") + (" required" if gate.required else ""),
    )


def _test(cell: CellResult, test: str) -> Cell:
    passed = cell.compliance.get(test)
    if passed is None:
        return Cell("–")
    return Cell(
        "✓ passed" if passed else "✗ failed",
        href=cell.evidence["compliance"],
        tone="good" if passed else "bad",
    )


def _made(summary: Summary) -> Section:
    blocks: list[Block] = [Flow(_flow(summary))]
    if any(trace.seconds >= run_charts.SHOWN_S for trace in summary.provenance):
        blocks.append(run_charts.timeline(summary.provenance))
    for name, fields in summary.systems.items():
        rows = [[Cell(field), Cell(value)] for field, value in fields.items()]
        description = Table(
            f"system-{name}",
            "System description",
            (Column("field"), Column("value", wide=True)),
            rows,
        )
        blocks.append(Details(f"about-{name}", f"System {name}", "", [description]))
    columns = (
        Column("step", choices=True),
        Column("of"),
        Column("manifest"),
        Column("code"),
        Column("started (UTC)"),
        Column("seconds", numeric=True),
    )
    rows = [
        [
            Cell(trace.step),
            Cell(trace.key),
            Cell(trace.manifest_sha256[:16]),
            Cell(trace.code_sha256[:16]),
            Cell(trace.started[:19].replace("T", " ")),
            number(trace.seconds, 0),
        ]
        for trace in summary.provenance
    ]
    table = Table("provenance-table", "One row a result of a step", columns, rows)
    words = (
        "Digests are sha256 of manifests and of the code that made them, shortened to 16 digits "
        "here and whole in summary.json. `./reproduce verify` checks them all."
    )
    blocks.append(Details("provenance", "Provenance of every result", words, [table]))
    engines = [f"{cell.key}: {cell.engine}, LoadGen {cell.loadgen}" for cell in summary.cells]
    blocks.append(Text(engines))
    return Section("made", "How it was made", "", blocks)


def _flow(summary: Summary) -> list[tuple[str, list[str]]]:
    """Stages in data order, with their steps and how many results each gave."""
    counts: dict[str, int] = {}
    for trace in summary.provenance:
        counts[trace.step] = counts.get(trace.step, 0) + 1
    stages = [
        (
            stage,
            [
                f"{step} × {counts[step]}" if counts.get(step, 0) > 1 else step
                for step, spec in STEPS.items()
                if spec.stage == stage and (step in counts or stage == "report")
            ],
        )
        for stage in STAGES
    ]
    return [("conf", ["composed once"]), ("plan", ["frozen"]), *stages]


def _departures(summary: Summary) -> Section:
    items = [f"{what}: {', '.join(keys)}" for what, keys in summary.departures.items()] or ["None."]
    lead = "Where a result leaves the rules of its round, with its value and the rule's."
    return Section("departures", "Departures from the rules", lead, [Text(items)])
