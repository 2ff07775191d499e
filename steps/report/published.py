"""`python -m steps.report.published`: the page of a published submission, without any run."""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import write_atomically
from steps.base.strict import Strict
from steps.mlperf.published import table
from steps.mlperf.published.result import Result
from steps.report import accuracy_charts, comparison_charts
from steps.report.blocks import Banner, Block, Card, Page, Section, Text
from steps.report.claims import model
from steps.report.claims.evaluate import ClaimResult, evaluate
from steps.report.comparison import scaling
from steps.report.comparison import tolerances as tolerance_file
from steps.report.comparison.partner import PartnerVerdict, judge, without_twins
from steps.report.comparison.tolerances import Tolerances
from steps.report.ledger import ledger_cards, ledger_section
from steps.report.markdown import to_markdown
from steps.report.page import render
from steps.report.sections import partner_section, results_table, scaling_section

SUBMITTER = "AMD"


class PublishedReport(Strict):
    """The whole of summary.json."""

    round: str
    submitter: str
    results: tuple[Result, ...]
    partners: tuple[PartnerVerdict, ...]
    claims: tuple[ClaimResult, ...]
    scaling: tuple[scaling.Scaling, ...]


def gather(
    round_name: str, rows: Sequence[Result], ledger: model.Ledger, tolerances: Tolerances
) -> PublishedReport:
    """The page's content as values. Raises UserError without a result of AMD's."""
    results = tuple(row for row in rows if row.submitter == SUBMITTER)
    if not results:
        raise UserError(f"the table of {round_name} has no result of {SUBMITTER}'s")
    instinct = without_twins([row for row in rows if row.gpu.startswith("MI")])
    verdicts = [
        judge(row, rows, tolerances)
        for row in instinct
        if row.nodes == 1 and row.submitter != SUBMITTER
    ]
    return PublishedReport(
        round=round_name,
        submitter=SUBMITTER,
        results=results,
        partners=tuple(sorted(verdicts, key=_order)),
        claims=evaluate(ledger, rows, (), tolerances) if ledger.round == round_name else (),
        scaling=scaling.scaling(instinct),
    )


def _order(verdict: PartnerVerdict) -> tuple[object, ...]:
    return (
        verdict.difference is None,
        verdict.gpu,
        verdict.benchmark,
        verdict.scenario,
        verdict.difference or 0.0,
    )


def build(report: PublishedReport, rows: Sequence[Result], source: str) -> Page:
    """The page of a published submission; `rows` are all of the round, for the last table."""
    results = report.results
    closed = sum(1 for result in results if result.division == "closed")
    problems = [f"{r.name}: {'; '.join(r.problems)}" for r in rows if r.problems]
    systems = len({(result.division, result.platform) for result in results})
    return Page(
        title=f"{report.submitter} in MLPerf Inference {report.round}",
        subtitle=f"{len(results)} published results of {systems} systems, {closed} in the closed "
        f"and {len(results) - closed} in the open division, beside those of its partners. "
        "Numbers are MLCommons'; comparisons and verdicts are computed here.",
        banner=Banner(
            "Published results, no run of ours.",
            "Every result links to its logs in the round's repository."
            + (" Rows that can't be compared:" if problems else ""),
            problems,
            tone="bad" if problems else "",
        ),
        cards=_cards(report),
        sections=[
            _results(results),
            partner_section(
                report.partners,
                "Single-node results of partners against AMD's on the same accelerator, benchmark, "
                "scenario, number of accelerators, division and precision. A partner is no part of "
                "its own band. Tolerances are those of conf/tolerances.yaml.",
            ),
            *([ledger_section(report.claims, source)] if report.claims else []),
            scaling_section(report.scaling),
            _accuracy(results),
            _every(rows),
            _provenance(report),
        ],
    )


def _cards(report: PublishedReport) -> list[Card]:
    compared = [verdict for verdict in report.partners if verdict.difference is not None]
    good = sum(1 for v in compared if v.verdict in ("within tolerance", "above tolerance"))
    best = _best(report.results, "Tokens/s")
    cards = [Card("published results", str(len(report.results)), report.submitter, "#results")]
    if best:
        cards.append(
            Card(
                "highest throughput", f"{best.number:,.0f}", f"{best.unit}, {best.gpu}", "#results"
            )
        )
    if report.claims:
        cards += ledger_cards(report.claims)
    if compared:
        text = f"{good} of {len(compared)}"
        cards.append(Card("partner results", text, "within tolerance or above", "#partners"))
    clusters = [one for one in report.scaling if one.nodes > 1 and one.efficiency is not None]
    if clusters:
        far = max(clusters, key=lambda one: one.nodes)
        label = f"{far.nodes} nodes of {far.gpu}, {far.scenario}"
        share = f"{100 * (far.efficiency or 0):.1f} %"
        cards.append(Card(label, share, "of the sum of its parts", "#scaling"))
    mixed = [one for one in clusters if " + " in one.gpu]
    if mixed:
        low, high = (f(100 * (o.efficiency or 0) for o in mixed) for f in (min, max))
        text = f"{low:.1f} – {high:.1f} %"
        cards.append(Card("mixed generations", text, "of the sum of their parts", "#scaling"))
    return cards


def _best(results: Sequence[Result], unit: str) -> Result | None:
    usable = [result for result in results if result.comparable and result.unit == unit]
    return max(usable, key=lambda result: result.number, default=None)


def _results(results: Sequence[Result]) -> Section:
    shown = without_twins(results)
    blocks: list[Block] = [comparison_charts.throughput(comparison_charts.published_rates(shown))]
    if chart := comparison_charts.headroom(shown):
        blocks.append(chart)
    caption = f"{len(results)} results; latencies beside their limits"
    blocks.insert(0, results_table("results-table", caption, results))
    lead = (
        "llama2-70b-99 and -99.9 are one run, submitted for both accuracy targets; the charts "
        "show it once."
    )
    return Section("results", "Results", lead, blocks)


def _accuracy(results: Sequence[Result]) -> Section:
    shown = [result for result in without_twins(results) if table.accuracy_shares(result)]
    measured = {comparison_charts.run_label(r): table.accuracy_shares(r) for r in shown}
    points = [
        accuracy_charts.Point(
            f"{r.gpu} {r.model} {r.precision}",
            r.number,
            r.unit,
            min(table.accuracy_shares(r).values()),
        )
        for r in shown
        if r.comparable and r.scenario == "Offline"
    ]
    charts = (accuracy_charts.gates(measured), accuracy_charts.trade_offs(points))
    return Section(
        "accuracy",
        "Accuracy, precision and pruning",
        "Metrics over those of the round's reference model. Benchmarks without a reference score "
        "here (Stable Diffusion XL has absolute limits) are left out.",
        [chart for chart in charts if chart],
    )


def _every(rows: Sequence[Result]) -> Section:
    instinct = [row for row in rows if row.gpu.startswith("MI")]
    return Section(
        "all",
        "All results on Instinct accelerators",
        "Every submitter's. Of the same round, other accelerators are in the project's table.",
        [results_table("all-table", f"{len(instinct)} results", instinct, page_only=True)],
    )


def _provenance(report: PublishedReport) -> Section:
    files = [path for path in sorted(table.FOLDER.glob(f"{report.round}*.csv"))]
    items = [
        f"{path.name}: sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files
    ]
    return Section(
        "provenance",
        "Where the numbers come from",
        "Results are rows of MLCommons' summary_results.json of the round, made into a table by "
        "`./reproduce import-round`. target_qps, durations, percentiles and "
        "LoadGen's version are from the published mlperf_log_detail.txt of each run.",
        [Text(items)],
    )


def write(folder: Path, round_name: str) -> dict[str, Path]:
    """Page, Markdown, CSV and JSON below `folder`; returns them by kind."""
    rows = table.load(round_name)
    ledger = model.load()
    report = gather(round_name, rows, ledger, tolerance_file.load())
    page = build(report, rows, ledger.source)
    texts = {
        "index.html": render(page),
        "summary.md": to_markdown(page),
        "summary.csv": table.results_csv(report.results),
        "summary.json": report.model_dump_json(indent=1) + "\n",
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return {name: folder / name for name in texts}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m steps.report.published")
    parser.add_argument("--round", default=table.rounds()[-1])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        for path in write(arguments.output, arguments.round).values():
            print(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
