"""How a result compares with AMD's published one and with those of AMD's partners."""

from collections.abc import Sequence
from typing import Literal

from steps.base.strict import Strict
from steps.mlperf.published import table
from steps.mlperf.published.result import Result
from steps.report.comparison.tolerances import Tolerances

REFERENCE = "AMD"
ROOM = 0.05
"""A latency with this much more of its limit left than the reference's is worth a hint."""

ROUNDING = 1e-9
"""3 % off in decimals is 3 % off, regardless of binary rounding."""

Verdict = Literal[
    "within tolerance",
    "above tolerance",
    "below tolerance, inside the partner band",
    "below the partner band",
    "below tolerance, no partner to compare with",
    "no published result matches",
    "no result to compare",
]


class Partner(Strict):
    """One published result of the band; `difference` is a share of the reference."""

    name: str
    submitter: str
    platform: str
    value: float
    difference: float
    link: str


class PartnerVerdict(Strict):
    """`difference`, `tolerance` and the band are shares of the reference's value.

    `references`: AMD's rows that match; the highest is the reference, so that a result can't look
    better by the choice. `hints`: what else differs, and where there is room.
    """

    name: str
    own: bool
    submitter: str
    platform: str
    gpu: str
    benchmark: str
    model: str
    scenario: str
    nodes: int | None
    precision: str
    value: float | None
    unit: str
    link: str
    verdict: Verdict
    difference: float | None
    tolerance: float
    reference: Partner | None
    references: int
    partners: tuple[Partner, ...]
    hints: tuple[str, ...]

    @property
    def band(self) -> tuple[float, float] | None:
        """Lowest and highest difference of a partner."""
        differences = [partner.difference for partner in self.partners]
        return (min(differences), max(differences)) if differences else None

    @property
    def sentence(self) -> str:
        """The verdict as one sentence."""
        if self.difference is None or self.reference is None:
            return f"{self.verdict}{': ' + '; '.join(self.hints) if self.hints else ''}"
        way = "below" if self.difference < 0 else "above"
        against = (
            f"AMD's published {self.gpu} {self.scenario} ({self.reference.value:,.10g} {self.unit})"
        )
        text = f"{100 * abs(self.difference):.1f} % {way} {against}"
        if self.band is None:
            return f"{text}; no partner published this"
        low, high = self.band
        place = (
            "inside"
            if low <= self.difference <= high
            else "below"
            if self.difference < low
            else "above"
        )
        return (
            f"{text}, {place} the published partner band of {100 * low:+.1f} … {100 * high:+.1f} %"
        )


TWIN = ("llama2-70b-99", "llama2-70b-99.9")
"""Submitted for both accuracy targets from the same run: comparisons show the stricter one."""


def without_twins(results: Sequence[Result]) -> list[Result]:
    """All but the results that the same system has for the stricter target too."""
    strict = {_system(row) for row in results if row.benchmark == TWIN[1]}
    return [row for row in results if row.benchmark != TWIN[0] or _system(row) not in strict]


def _system(row: Result) -> tuple[str, ...]:
    return (row.source, row.round, row.division, row.submitter, row.platform, row.scenario)


def judge(
    result: Result, published: Sequence[Result], tolerances: Tolerances, clock: str = ""
) -> PartnerVerdict:
    """Matches by accelerator, benchmark, scenario, nodes, accelerators, division, precision.

    In the open division the model counts too: a pruned one is no reference for a whole one. Of
    several rounds the result's own is taken, if it has a match, else the latest that has one. A
    published result is judged by the others: it is no part of its own band.
    `clock`: what the result's system description says of its accelerators' clock.
    """
    alike = [
        row
        for row in published
        if row.comparable and _alike(row, result) and row.location != result.location
    ]
    alike = [row for row in alike if row.round == result.round] or _latest(alike)
    references = [row for row in alike if row.submitter == REFERENCE]
    tolerance = tolerances.of((references or [result])[0].round, result.gpu)
    found = PartnerVerdict(
        name=result.name,
        own=result.source == "own",
        submitter=result.submitter,
        platform=result.platform,
        gpu=result.gpu,
        benchmark=result.benchmark,
        model=result.model,
        scenario=result.scenario,
        nodes=result.nodes,
        precision=result.precision,
        value=result.value,
        unit=result.unit,
        link=table.link(result),
        verdict="no published result matches",
        difference=None,
        tolerance=tolerance,
        reference=None,
        references=len(references),
        partners=(),
        hints=(_nearest(result, published),),
    )
    if not result.comparable:
        return found.model_copy(
            update={"verdict": "no result to compare", "hints": (result.reason,)}
        )
    if not references:
        return found
    reference = max(references, key=lambda row: row.number)
    partners = tuple(
        _partner(row, reference.number)
        for row in sorted(alike, key=lambda row: row.number)
        if row.submitter != REFERENCE
    )
    difference = result.number / reference.number - 1
    verdict: Verdict
    if abs(difference) <= tolerance + ROUNDING:
        verdict = "within tolerance"
    elif difference > 0:
        verdict = "above tolerance"
    elif not partners:
        verdict = "below tolerance, no partner to compare with"
    elif difference >= partners[0].difference:
        verdict = "below tolerance, inside the partner band"
    else:
        verdict = "below the partner band"
    return found.model_copy(
        update={
            "verdict": verdict,
            "difference": difference,
            "reference": _partner(reference, reference.number),
            "partners": partners,
            "hints": (*differences(result, reference, clock), *headroom(result, reference)),
        }
    )


def _alike(row: Result, result: Result) -> bool:
    """Whether a published row is of the same kind: it may be compared without a footnote."""
    return (
        bool(result.gpu)
        and _identity(row) == _identity(result)
        and row.accelerators_per_node == result.accelerators_per_node
        and row.division == result.division
        and (row.division == "closed" or row.model == result.model)
    )


def _identity(row: Result) -> tuple[object, ...]:
    return (
        row.gpu,
        row.benchmark,
        row.scenario,
        row.nodes,
        row.unit,
        row.precision.lower().replace("mxfp4", "fp4"),  # v6.0's rows say fp4 of the same format
    )


def _latest(rows: Sequence[Result]) -> list[Result]:
    rounds = {row.round for row in rows}
    last = max(rounds, key=lambda name: [int(part) for part in name[1:].split(".")], default="")
    return [row for row in rows if row.round == last]


def _nearest(result: Result, published: Sequence[Result]) -> str:
    """Why nothing matches: the first property that no published row of AMD's shares."""
    if not result.gpu:
        return "the system has no accelerator that was published"
    rows = [row for row in published if row.submitter == REFERENCE]
    wanted = (
        ("accelerator", "gpu"),
        ("benchmark", "benchmark"),
        ("scenario", "scenario"),
        ("division", "division"),
        ("nodes", "nodes"),
        ("accelerators a node", "accelerators_per_node"),
        ("precision", "precision"),
        *([("model", "model")] if result.division == "open" else []),
    )
    for words, name in wanted:
        mine = getattr(result, name)
        rows = [row for row in rows if getattr(row, name) == mine]
        if not rows:
            return f"AMD published none with {words} {mine}"
    return "AMD published none in this unit"


def differences(result: Result, reference: Result, clock: str = "") -> tuple[str, ...]:
    """What differs in how the two were made, as far as both say; "ours, the reference's"."""
    found = [
        f"{words}: {mine or 'not stated'}; {REFERENCE}'s {theirs or 'not stated'}"
        for words, mine, theirs in (
            ("round", result.round, reference.round),
            ("software", result.software, reference.software),
            ("host processor", result.processor, reference.processor),
            ("operating system", result.operating_system, reference.operating_system),
        )
        if mine != theirs
    ]
    if result.run and reference.run:
        mine, theirs = result.run, reference.run
        if mine.loadgen_version != theirs.loadgen_version:
            found.append(f"LoadGen: {mine.loadgen_version}; {REFERENCE}'s {theirs.loadgen_version}")
        for words, name, unit in (
            ("min_duration", "min_duration_s", " s"),
            ("target_qps", "target_qps", ""),
        ):
            ours, other = getattr(mine, name), getattr(theirs, name)
            if ours is not None and other is not None and ours != other:
                found.append(f"{words}: {ours:,g}{unit}; {REFERENCE}'s {other:,g}{unit}")
    model = table.model_of(result.benchmark)
    mhz = table.clocks(reference.round).get((model, result.gpu, result.scenario))
    if mhz is not None:
        found.append(
            f"accelerator clock: {clock or 'not stated'}; {REFERENCE}'s scripts set {mhz:,} MHz"
        )
    return tuple(found)


def headroom(result: Result, reference: Result) -> tuple[str, ...]:
    """How much of each latency limit is left, here and in the reference."""
    if result.run is None:
        return ()
    found = []
    for words in ("ttft", "tpot"):
        left = _left(result, words)
        if left is None:
            continue
        text = f"p99 {words.upper()} leaves {100 * left:.0f} % of its limit"
        theirs = _left(reference, words)
        if theirs is not None:
            text += f", {REFERENCE}'s {100 * theirs:.0f} %"
            if left > theirs + ROOM:
                text += ": a higher target_qps may fit"
        found.append(text)
    return tuple(found)


def _left(result: Result, name: str) -> float | None:
    if result.run is None:
        return None
    limit = getattr(result.run, f"{name}_limit_ms")
    p99 = getattr(result.run, f"{name}_p99_ms")
    return None if not limit or p99 is None else float(1 - p99 / limit)


def _partner(row: Result, reference: float) -> Partner:
    return Partner(
        name=row.name,
        submitter=row.submitter,
        platform=row.platform,
        value=row.number,
        difference=row.number / reference - 1,
        link=table.link(row),
    )
