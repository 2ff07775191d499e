"""The page of an experiment's own results."""

from collections.abc import Mapping
from pathlib import Path

from steps.plan.states import WORDS, word_for
from steps.report.blocks import Banner, Card, Page, Section
from steps.report.comparison.partner import PartnerVerdict
from steps.report.compression import compression_section
from steps.report.ledger import ledger_section
from steps.report.own_accuracy import accuracy_section
from steps.report.own_performance import performance_section, unfinished_section
from steps.report.own_provenance import (
    confidential_section,
    departures_section,
    made_section,
    rehearsal_section,
)
from steps.report.own_report import OwnReport
from steps.report.own_states import states_section
from steps.report.pictures import pictures_section
from steps.report.points import Points
from steps.report.sections import partner_section, scaling_section, tone
from steps.report.summary import CellResult, Summary

MOST_CARDS = 9
"""The most cards of one kind: more are in the table below."""


def build(report: OwnReport, inputs: Mapping[str, Path], source: str) -> Page:
    """Summary first, then performance, accuracy, comparisons, provenance.

    `inputs` are those of the report, by role; `source` is where the claims are from.
    """
    points = Points(report.cells)
    compression = compression_section(inputs)
    sections = [
        *([rehearsal_section(report)] if report.replaced else []),
        states_section(report),
        *(_results(points, report, inputs) if report.cells else []),
        *unfinished_section(report, inputs),
        *([compression] if compression else []),
        *(_comparisons(report, source) if report.cells else []),
        made_section(report, points),
        departures_section(report, points),
        confidential_section(report),
    ]
    divisions = " and ".join(report.divisions)
    systems = report.systems or dict.fromkeys(cell.axes["system"] for cell in report.states)
    return Page(
        title=report.experiment,
        subtitle=f"MLPerf Inference {report.round}, {divisions} division, "
        f"{report.submitter} · {', '.join(systems)} · "
        f"{'dress rehearsal' if report.replaced else 'not verified by MLCommons'}",
        banner=_banner(report),
        cards=_cards(points, report.partners),
        sections=sections,
    )


def _results(points: Points, report: OwnReport, inputs: Mapping[str, Path]) -> list[Section]:
    return [
        performance_section(points, inputs, report.partners),
        accuracy_section(points),
        *pictures_section(points, inputs),
    ]


def _comparisons(report: OwnReport, source: str) -> list[Section]:
    found = [
        partner_section(
            report.partners,
            "Every result against AMD's published one on the same accelerator, benchmark, "
            "scenario, number of nodes, division and precision, and against AMD's partners.",
        )
    ]
    found += [ledger_section(report.claims, source)] if report.claims else []
    found += [scaling_section(report.scaling)] if any(o.nodes > 1 for o in report.scaling) else []
    return found


def _banner(summary: Summary) -> Banner:
    if any(cell.state != "valid" for cell in summary.states):
        return _unfinished(summary)
    if summary.may_be_submitted:
        return Banner(
            "Complete:",
            "every run is valid, every required gate and compliance test passed, and nothing "
            "departs from the rules of the round.",
            tone="good",
        )
    count = len(summary.states)
    if not summary.departures:
        return Banner(
            "Not packaged.",
            "Every run is valid and every required gate and compliance test passed, but the "
            "submission isn't made, or its validation found errors: ./reproduce says why.",
        )
    return Banner(
        "May not be submitted.",
        "Every run is valid and every required gate and compliance test passed, but:",
        [f"{what} ({len(keys)} of {count} results)" for what, keys in summary.departures.items()],
    )


def _unfinished(summary: Summary) -> Banner:
    keys = [cell.key for cell in summary.states]
    wrong = [cell for cell in summary.states if cell.state != "valid"]
    items = [
        f"{word_for(cell.key, keys)}: {WORDS[cell.state]}{f', {cell.why}' if cell.why else ''}"
        for cell in wrong[:MOST_CARDS]
    ]
    more = len(wrong) - MOST_CARDS
    return Banner(
        f"{len(summary.cells)} of {len(keys)} cells are valid.",
        "There is no submission until all are. The others:",
        [*items, f"and {more} more, in the table of states"] if more > 0 else items,
    )


def _cards(points: Points, partners: tuple[PartnerVerdict, ...]) -> list[Card]:
    compared = [verdict for verdict in partners if verdict.difference is not None]
    results = [_result_card(points, cell) for cell in points.cells]
    verdicts = [_verdict_card(verdict) for verdict in compared]
    return [
        *_few(results, "more results", "#performance"),
        *_few(verdicts, "more comparisons", "#partners"),
    ]


def _result_card(points: Points, cell: CellResult) -> Card:
    digits = 0 if cell.value >= 1000 else 1
    return Card(
        points.label(cell),
        f"{cell.value:,.{digits}f}",
        cell.unit.lower(),
        cell.evidence["performance log"],
    )


def _verdict_card(verdict: PartnerVerdict) -> Card:
    return Card(
        f"{verdict.gpu} {verdict.benchmark} {verdict.scenario} against AMD's",
        f"{100 * (verdict.difference or 0):+.1f} %",
        verdict.verdict,
        "#partners",
        tone(verdict),
    )


def _few(cards: list[Card], words: str, href: str) -> list[Card]:
    left = len(cards) - MOST_CARDS
    more = [Card("and", f"{left}", words, href)] if left > 0 else []
    return [*cards[:MOST_CARDS], *more]
