"""Sections that the page of own results and that of published ones share."""

from collections.abc import Sequence

from steps.mlperf.published import table
from steps.mlperf.published.result import Result
from steps.report import comparison_charts as charts
from steps.report.blocks import (
    Block,
    Cell,
    Column,
    Details,
    Section,
    Table,
    Text,
    Tone,
    number,
    of_limit,
    share,
    significant,
    too_long,
)
from steps.report.comparison.partner import PartnerVerdict
from steps.report.comparison.scaling import Scaling

MOST_PRECISION = 24
"""Stable Diffusion XL's precision is a list of four models' in some submissions."""


MOST_HINTS = 12
"""Hints of more results than this are for the page: a comment in a pull request has a limit."""


def results_table(
    name: str, caption: str, results: Sequence[Result], page_only: bool = False
) -> Table:
    """One row a result, with what its log says of the run."""
    columns = (
        Column("submitter", choices=True),
        Column("accelerator", choices=True),
        Column("benchmark", choices=True),
        Column("scenario", choices=True),
        Column("result", numeric=True),
        Column("unit"),
        Column("precision", choices=True),
        Column("nodes", numeric=True),
        Column("p99 TTFT, ms", numeric=True),
        Column("p99 TPOT, ms", numeric=True),
        Column("target_qps", numeric=True),
        Column("run, s", numeric=True),
        Column("LoadGen"),
        Column("platform"),
        Column("division", choices=True),
        Column("ID"),
        Column("remarks", wide=True),
    )
    rows = [_result_row(result) for result in results]
    return Table(name, caption, columns, rows, page_only)


def _result_row(result: Result) -> list[Cell]:
    run = result.run
    nodes = "–" if result.nodes is None else str(result.nodes)
    return [
        Cell(result.submitter),
        Cell(result.gpu or "–"),
        Cell(result.benchmark, note="" if result.model == result.benchmark else result.model),
        Cell(result.scenario),
        significant(result.value, href=table.link(result), tone="bad" if result.problems else ""),
        Cell(result.unit),
        Cell(result.precision[:MOST_PRECISION]),
        Cell(nodes, sort=result.nodes),
        of_limit(run.ttft_p99_ms, run.ttft_limit_ms) if run else Cell("–"),
        of_limit(run.tpot_p99_ms, run.tpot_limit_ms) if run else Cell("–"),
        significant(run.target_qps if run else None),
        number(run.duration_s if run else None, 0),
        Cell(run.loadgen_version if run else "–"),
        Cell(result.platform),
        Cell(result.division),
        Cell(result.id),
        Cell("; ".join(result.problems), tone="bad" if result.problems else ""),
    ]


def partner_section(verdicts: Sequence[PartnerVerdict], lead: str) -> Section:
    """How results compare with AMD's: a few own ones in a sentence each, all on chart and table.

    Without a single comparison, why there is none.
    """
    title = "Against AMD's published results"
    compared = [verdict for verdict in verdicts if verdict.difference is not None]
    if not compared:
        return Section("partners", title, lead, [Text(_uncompared(verdicts))])
    own = [verdict for verdict in compared if verdict.own]
    few = 0 < len(own) <= MOST_HINTS
    blocks: list[Block] = [_verdict_details(n, v) for n, v in enumerate(own)] if few else []
    blocks += [charts.partners(compared), _partner_table(verdicts, hints=not few)]
    return Section("partners", title, lead, blocks)


def _verdict_details(number: int, verdict: PartnerVerdict) -> Details:
    """The sentence that a partner asks for; what differs is below it."""
    return Details(
        f"verdict-{number}",
        f"{_what(verdict)}: {verdict.sentence}",
        "What differs, and the room left below the limits: hints where to look."
        * bool(verdict.hints),
        items=verdict.hints,
        tone=tone(verdict),
        badge=verdict.verdict,
    )


def tone(verdict: PartnerVerdict) -> Tone:
    if verdict.difference is None:
        return ""
    return "good" if verdict.verdict in ("within tolerance", "above tolerance") else "bad"


def _uncompared(verdicts: Sequence[PartnerVerdict]) -> list[str]:
    """Every reason once, with its results."""
    reasons: dict[str, list[str]] = {}
    for verdict in verdicts:
        reasons.setdefault(verdict.sentence, []).append(_what(verdict))
    return [f"{reason} ({', '.join(dict.fromkeys(of))})" for reason, of in reasons.items()]


def _what(verdict: PartnerVerdict) -> str:
    return f"{verdict.platform} {verdict.model} {verdict.precision} {verdict.scenario}"


def _partner_table(verdicts: Sequence[PartnerVerdict], *, hints: bool) -> Table:
    columns = [
        Column("submitter", choices=True),
        Column("accelerator", choices=True),
        Column("benchmark", choices=True),
        Column("precision", choices=True),
        Column("scenario", choices=True),
        Column("result", numeric=True),
        Column("AMD's", numeric=True),
        Column("difference", numeric=True),
        Column("verdict", choices=True),
        Column("partner band", numeric=True),
        Column("tolerance", numeric=True),
    ]
    rows = [_partner_row(verdict) for verdict in verdicts]
    if hints:
        many = len(verdicts) > MOST_HINTS
        columns.append(Column("what differs, and what is left", wide=True, page_only=many))
        rows = [
            [*row, Cell(f"{len(verdict.hints)} hints", more="; ".join(verdict.hints))]
            for row, verdict in zip(rows, verdicts, strict=True)
        ]
    return Table("partner-table", "One row a result", columns, rows, page_only=too_long(rows))


def _partner_row(verdict: PartnerVerdict) -> list[Cell]:
    band = "–"
    if verdict.band is not None:
        low, high = verdict.band
        band = f"{100 * low:+.1f} … {100 * high:+.1f} %"
    reference = verdict.reference
    more = f" (higher of {verdict.references})" if verdict.references > 1 else ""
    return [
        Cell(verdict.submitter),
        Cell(verdict.gpu or "–"),
        Cell(verdict.model),
        Cell(verdict.precision[:MOST_PRECISION]),
        Cell(verdict.scenario),
        significant(verdict.value, href=verdict.link),
        significant(
            reference.value if reference else None,
            href=reference.link if reference else "",
            note=more.strip(),
        ),
        share(verdict.difference, signed=True),
        Cell(verdict.verdict, tone=tone(verdict)),
        Cell(band, sort=verdict.band[0] if verdict.band else None),
        share(verdict.tolerance, 0),
    ]


def scaling_section(found: Sequence[Scaling]) -> Section:
    """Throughput and efficiency against nodes."""
    columns = (
        Column("submitter", choices=True),
        Column("platform"),
        Column("accelerators", choices=True),
        Column("benchmark", choices=True),
        Column("scenario", choices=True),
        Column("nodes", numeric=True),
        Column("GPUs", numeric=True),
        Column("result", numeric=True),
        Column("per GPU", numeric=True),
        Column("unit"),
        Column("of the sum of its parts", numeric=True),
        Column("arithmetic", wide=True),
    )
    rows = [
        [
            Cell(one.submitter),
            Cell(one.platform),
            Cell(one.gpu),
            Cell(one.benchmark),
            Cell(one.scenario),
            Cell(str(one.nodes), sort=one.nodes),
            number(one.accelerators, 0),
            significant(one.value, href=one.link),
            number(one.value / one.accelerators if one.accelerators else None, 1),
            Cell(one.unit),
            share(one.efficiency),
            Cell(one.arithmetic),
        ]
        for one in found
        if one.nodes > 1
    ]
    lead = (
        "A cluster's result over the sum of its nodes' own results: the same submitter's "
        "single-node results, else those of a party of a joint submission, else AMD's. Nodes with "
        "fewer accelerators than the single node count by their accelerators."
    )
    if not rows:
        none = Text(("No result here is of more than one node.",))
        return Section("scaling", "Scaling", lead, (none,))
    blocks: list[Block] = [*charts.scaling(found)]
    blocks.append(Table("scaling-table", "One row a system of several nodes", columns, rows))
    return Section("scaling", "Scaling", lead, blocks)
