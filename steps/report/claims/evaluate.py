"""Verdicts on claims. Neutral on purpose: a value, its derivation, and whether it agrees."""

import math
from collections.abc import Sequence

from steps.base.strict import Strict
from steps.mlperf.published.result import Result
from steps.mlperf.published.table import ClosedRule, link
from steps.report.claims.compute import Evidence, NotComputable, compute
from steps.report.claims.model import (
    Claim,
    Ledger,
    Operand,
    Ratio,
    Reading,
    Selection,
    ShareOfParts,
    Spread,
    Stated,
    Value,
    Verdict,
)
from steps.report.comparison.tolerances import Tolerances


class UsedRow(Strict):
    """A result that a number rests on; `link` is its logs' address, or an own run's directory."""

    name: str
    submitter: str
    platform: str
    scenario: str
    value: float
    unit: str
    link: str


class ReadingResult(Strict):
    """`value` is None where it can't be computed; `arithmetic` says why then.

    `agrees`: with what the claim states; None without a value, and for readings that don't
    decide. `own`: an own result is among those used.
    """

    words: str
    decides: bool
    named: bool
    own: bool
    value: float | None
    agrees: bool | None
    arithmetic: str
    rows: tuple[UsedRow, ...]
    secondary_sources: tuple[str, ...]
    rules: tuple[ClosedRule, ...] = ()


class ClaimResult(Strict):
    """`value` is of the reading that the claim's words name, else of the first deciding one that
    agrees with the verdict, else of the first that has a value."""

    id: str
    section: str
    claim: str
    benchmarks: tuple[str, ...]
    scenario: str
    systems: str
    stated: str
    unit: str
    verdict: Verdict
    value: float | None
    secondary_sources: tuple[str, ...]
    readings: tuple[ReadingResult, ...]
    note: str

    @property
    def agreeing(self) -> str:
        """ "2 of 8 readings"."""
        deciding = [reading for reading in self.readings if reading.decides]
        agree = sum(1 for reading in deciding if reading.agrees)
        return f"{agree} of {len(deciding)} reading{'s' if len(deciding) != 1 else ''}"

    @property
    def sentence(self) -> str:
        """The verdict, with the count of readings that agree."""
        between = ": " if self.under.startswith("holds") else " "
        return f"{self.verdict}{between}{self.under}".strip()

    @property
    def under(self) -> str:
        """ "under 8 of 8 readings"; "holds under 1 of 4 readings" where it isn't supported."""
        words = {
            "supported": f"under {self.agreeing}",
            "not supported": f"holds under {self.agreeing}",
        }
        return words.get(self.verdict, "")


def evaluate(
    ledger: Ledger,
    published: Sequence[Result],
    own: Sequence[Result],
    tolerances: Tolerances,
) -> tuple[ClaimResult, ...]:
    """Every claim of the ledger, in its order."""
    return tuple(_claim(c, ledger.round, published, own, tolerances) for c in ledger.claims)


def _claim(
    claim: Claim,
    round_name: str,
    published: Sequence[Result],
    own: Sequence[Result],
    tolerances: Tolerances,
) -> ClaimResult:
    readings = []
    for reading in claim.readings:
        for benchmark in claim.benchmarks:
            filled = _filled(reading, benchmark, claim.scenario, round_name)
            if len(claim.benchmarks) > 1:
                filled = filled.model_copy(update={"words": f"{filled.words}; {benchmark}"})
            readings.append(_reading(filled, claim, published, tolerances))
            if mine := _with_own(filled, own):
                evaluated = _reading(mine, claim, [*own, *published], tolerances)
                if evaluated.value is not None:
                    readings.append(evaluated)
    deciding = [reading for reading in readings if reading.decides]
    valued = [reading for reading in deciding if reading.value is not None]
    named = [reading for reading in valued if reading.named]
    judged = named or valued
    agreeing = [reading for reading in judged if reading.agrees]
    holds = len(agreeing) == len(judged) if named else 2 * len(agreeing) > len(judged)
    alike = [reading for reading in judged if reading.agrees is holds]
    chosen = next(iter(alike or judged), None)
    verdict: Verdict = (
        "not verifiable from public data"
        if not judged
        else "supported"
        if holds
        else "not supported"
    )
    return ClaimResult(
        **claim.model_dump(exclude={"stated", "readings"}),
        stated=claim.stated.words,
        unit=claim.stated.unit,
        verdict=verdict,
        value=chosen.value if chosen else None,
        secondary_sources=chosen.secondary_sources if chosen else (),
        readings=tuple(readings),
    )


def _reading(
    reading: Reading, claim: Claim, pool: Sequence[Result], tolerances: Tolerances
) -> ReadingResult:
    evidence = Evidence()
    value: float | None
    try:
        value, arithmetic = compute(reading, pool, claim.stated.unit, evidence)
    except NotComputable as error:
        value, arithmetic = None, str(error)
    return ReadingResult(
        words=reading.words,
        decides=reading.decides,
        named=reading.named,
        own=any(result.source == "own" for result in evidence.results),
        value=value,
        agrees=agrees(value, claim.stated, tolerances)
        if value is not None and reading.decides
        else None,
        arithmetic=arithmetic,
        rows=tuple(_used(result) for result in evidence.results),
        secondary_sources=tuple(evidence.secondary),
        rules=tuple(evidence.rules),
    )


def agrees(value: float, stated: Stated, tolerances: Tolerances) -> bool:
    """Whether a computed value agrees with the claim, in the claim's unit.

    "rounds to" allows half a unit of the last digit that the claim gives.
    """
    if stated.meets == "rounds to":
        half = 0.5 * math.pow(10, -stated.decimals)
        return abs(value - stated.value) <= half + 1e-9
    if stated.meets == "at most":
        return value <= stated.value + 1e-9
    if stated.meets == "at least":
        return value >= stated.value - 1e-9
    share = tolerances.claims.parity if stated.meets == "parity" else tolerances.claims.linear
    return abs(value - stated.value) <= share * stated.value


def _filled(reading: Reading, benchmark: str, scenario: str, round_name: str) -> Reading:
    """The reading with the claim's benchmark, scenario and round if it has none."""

    def selection(given: Selection) -> Selection:
        return given.model_copy(
            update={
                "benchmark": given.benchmark or benchmark,
                "scenario": given.scenario or scenario,
                "round": given.round or round_name,
            }
        )

    def operand(given: Operand) -> Operand:
        if given.select is None:
            return given
        return given.model_copy(update={"select": selection(given.select)})

    computation = reading.compute
    if isinstance(computation, Spread):
        # Its scenarios are its own, so that of the claim is not filled in.
        changes: dict[str, object] = {
            name: selection(getattr(computation, name)).model_copy(update={"scenario": None})
            for name in ("group", "reference")
        }
    elif isinstance(computation, ShareOfParts):
        changes = {
            "whole": operand(computation.whole),
            "parts": tuple(
                part.model_copy(update={"operand": operand(part.operand)})
                for part in computation.parts
            ),
        }
    else:
        changes = {
            name: operand(given)
            for name in ("operand", "baseline", "numerator", "denominator")
            if isinstance(given := getattr(computation, name, None), Operand)
        }
    return reading.model_copy(update={"compute": computation.model_copy(update=changes)})


def _with_own(reading: Reading, own: Sequence[Result]) -> Reading | None:
    """The reading with an own result in the first place, None if no own result fits it."""
    computation = reading.compute
    if isinstance(computation, Ratio):
        name, given = "numerator", computation.numerator
    elif isinstance(computation, ShareOfParts):
        name, given = "whole", computation.whole
    elif isinstance(computation, Value):
        name, given = "operand", computation.operand
    else:
        return None
    if given.select is None:
        return None
    select = given.select.model_copy(update={"source": "own"})
    if not any(select.matches(result) for result in own):
        return None
    mine = given.model_copy(update={"what": "the own result", "select": select})
    return reading.model_copy(
        update={
            "words": f"own result; {reading.words}",
            "decides": False,
            "compute": computation.model_copy(update={name: mine}),
        }
    )


def _used(result: Result) -> UsedRow:
    return UsedRow(
        name=result.name,
        submitter=result.submitter,
        platform=result.platform,
        scenario=result.scenario,
        value=result.number,
        unit=result.unit,
        link=link(result),
    )
