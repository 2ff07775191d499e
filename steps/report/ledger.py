"""The section of the claims ledger."""

from collections.abc import Sequence

from steps.mlperf.published.table import REPOSITORY
from steps.report.blocks import (
    Block,
    Card,
    Cell,
    Column,
    Details,
    Section,
    Table,
    Tone,
    significant,
)
from steps.report.claims import model
from steps.report.claims.evaluate import ClaimResult, ReadingResult
from steps.report.claims.model import Verdict

TONES: dict[Verdict, Tone] = {
    "supported": "good",
    "not supported": "bad",
    "not verifiable from public data": "soft",
}


def ledger_section(claims: Sequence[ClaimResult], source: str) -> Section:
    """Every claim with its value and verdict, then each with all readings."""
    columns = (
        Column("claim", wide=True),
        Column("stated"),
        Column("value", numeric=True),
        Column("verdict", choices=True),
        Column("benchmark"),
        Column("scenario", choices=True),
        Column("section", choices=True),
    )
    rows = [
        [
            Cell(claim.claim, href=f"#claim-{claim.id}"),
            Cell(claim.stated),
            value_cell(claim.value, claim.unit),
            Cell(
                claim.verdict,
                tone=TONES[claim.verdict],
                note="; ".join(
                    filter(
                        None,
                        (
                            claim.under,
                            "rests on a secondary source" if claim.secondary_sources else "",
                        ),
                    )
                ),
            ),
            Cell(_place(", ".join(claim.benchmarks))),
            Cell(_place(claim.scenario)),
            Cell(claim.section),
        ]
        for claim in claims
    ]
    lead = (
        "Every quantitative claim of AMD about its results of this round, computed on published "
        "rows. Supported: the reading that the claim's words name gives the stated value, or most "
        "fair readings do where the words name none. Not supported: readings can be computed, and "
        "that isn't so. Not verifiable: a result that it needs is not published. The claims are "
        "in our words; their source is:"
    )
    blocks: list[Block] = [Table("claims-table", "One row a claim", columns, rows)]
    blocks += [_claim_details(claim) for claim in claims]
    return Section("claims", "Claims ledger", lead, blocks, source)


def value_cell(value: float | None, unit: str) -> Cell:
    """A claim's value in its unit."""
    if value is None:
        return Cell("–")
    texts = {
        "times": f"{value:.2f}×",
        "percent": f"{value:.2f} %",
        "percent more": f"{value:+.2f} %",
        "billion parameters": f"{value:.4g} {unit}",
    }
    return Cell(texts.get(unit, f"{value:,.10g} {unit}"), sort=value)


def _claim_details(claim: ClaimResult) -> Details:
    columns = (
        Column("reading", wide=True),
        Column("agrees"),
        Column("value", numeric=True),
        Column("arithmetic", wide=True),
    )
    name = f"claim-{claim.id}"
    readings = Table(
        f"{name}-readings",
        f"Readings of the claim; stated: {claim.stated}",
        columns,
        [_reading_row(reading, claim.unit) for reading in claim.readings],
        page_only=len({one.agrees for one in claim.readings if one.decides}) == 1,
    )
    used = {row.link: row for reading in claim.readings for row in reading.rows}
    rows = Table(
        f"{name}-rows",
        "Results used",
        (
            Column("result"),
            Column("submitter"),
            Column("platform"),
            Column("value", numeric=True),
            Column("unit"),
        ),
        [
            [
                Cell(row.name, href=row.link),
                Cell(row.submitter),
                Cell(row.platform),
                significant(row.value),
                Cell(row.unit),
            ]
            for row in used.values()
        ],
        page_only=True,
    )
    rules = any(reading.rules for reading in claim.readings)
    sources = sorted({s for reading in claim.readings for s in reading.secondary_sources})
    text = claim.note + "".join(f" Secondary source: {source}." for source in sources)
    return Details(
        name=name,
        summary=f"{claim.claim} ({', '.join(claim.benchmarks)} {claim.scenario})"
        if claim.scenario not in ("all", "none")
        else claim.claim,
        text=text.strip(),
        tables=(readings, *([_rules(claim, name)] if rules else []), *([rows] if used else [])),
        tone=TONES[claim.verdict],
        badge=claim.sentence,
    )


def _rules(claim: ClaimResult, name: str) -> Table:
    """Each rule with the file that shows it."""
    address = REPOSITORY.format(round=model.load().round, path="")
    return Table(
        f"{name}-rules",
        "Rules of the closed division",
        (Column("rule", wide=True), Column("met"), Column("found", wide=True), Column("of a")),
        [
            [
                Cell(rule.rule, href=f"{address}{rule.evidence}"),
                Cell("yes" if rule.met else "no", tone="good" if rule.met else "bad"),
                Cell(rule.found),
                Cell(rule.of),
            ]
            for reading in claim.readings
            for rule in reading.rules
        ],
        page_only=True,
    )


def _place(name: str) -> str:
    """Claims that are about no benchmark say "none"."""
    return "–" if name == "none" else name


def _reading_row(reading: ReadingResult, unit: str) -> list[Cell]:
    words: tuple[str, Tone] = {True: ("yes", "good"), False: ("no", "bad")}.get(  # type: ignore[assignment]
        bool(reading.agrees), ("", "")
    )
    if reading.agrees is None:
        words = ("–" if reading.decides else "for comparison", "soft")
    return [
        Cell(reading.words, note="named by the claim" if reading.named else ""),
        Cell(words[0], tone=words[1]),
        value_cell(reading.value, unit),
        Cell(reading.arithmetic),
    ]


def ledger_cards(claims: Sequence[ClaimResult]) -> list[Card]:
    """How many claims got which verdict."""
    counts = [sum(1 for claim in claims if claim.verdict == verdict) for verdict in TONES]
    text = " · ".join(str(count) for count in counts)
    return [
        Card("claims of AMD", text, "supported · not supported · not verifiable", "#claims"),
    ]
