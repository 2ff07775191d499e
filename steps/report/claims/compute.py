"""The arithmetic of a reading: a number, its derivation, and the results it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from steps.mlperf.published.result import Result
from steps.mlperf.published.table import ClosedRule, closed_rules, reference_scores
from steps.report.claims.model import (
    AccuracyShare,
    Capacity,
    Computation,
    Operand,
    Ratio,
    Reading,
    Rules,
    Selection,
    ShareOfParts,
    Spread,
    Unit,
    Value,
)


class NotComputable(Exception):
    """Why a reading has no number: a phrase for readers."""


@dataclass
class Evidence:
    """The results used on the way. `secondary`: sources of numbers that are in no table. `rules`:
    what was judged rule by rule."""

    results: list[Result] = field(default_factory=list)
    secondary: list[str] = field(default_factory=list)
    rules: list[ClosedRule] = field(default_factory=list)

    def number(self, operand: Operand, pool: Sequence[Result]) -> tuple[float, str]:
        """An operand's value and how to write it. Raises NotComputable."""
        if operand.value is not None:
            self.secondary.append(f"{operand.what}: {operand.source}")
            return operand.value, f"{operand.value:,.10g}"
        assert operand.select is not None
        found = self.select(operand.select, pool, operand.what)
        values = [result.number for result in found]
        if operand.take == "mean":
            text = f"mean of {len(values)} ({', '.join(f'{v:,.10g}' for v in values)})"
            mean = sum(values) / len(values)
            return mean, f"{mean:,.6g}, the {text}" if len(values) > 1 else f"{mean:,.10g}"
        if operand.take == "only":
            value = self.one(operand, pool).number
            return value, f"{value:,.10g}"
        return max(values), f"{max(values):,.10g}"

    def one(self, operand: Operand, pool: Sequence[Result]) -> Result:
        """The single result of an operand. Raises NotComputable."""
        if operand.select is None:
            raise NotComputable(f"{operand.what} is a number without a result")
        found = self.select(operand.select, pool, operand.what)
        if len(found) > 1:
            raise NotComputable(f"{len(found)} results match {operand.what}, one is needed")
        return found[0]

    def select(self, selection: Selection, pool: Sequence[Result], what: str) -> list[Result]:
        """Comparable results that match. Raises NotComputable if there is none."""
        matching = [result for result in pool if selection.matches(result)]
        found = [result for result in matching if result.comparable]
        if not found:
            problems = sorted({result.reason for result in matching if result.reason})
            reason = f" that can be compared ({'; '.join(problems)})" if problems else ""
            raise NotComputable(f"no result of {what} is published{reason}")
        units = {result.unit for result in found}
        if len(units) > 1:
            raise NotComputable(f"results of {what} are in different units: {sorted(units)}")
        self.results += [result for result in found if result not in self.results]
        return found


def compute(
    reading: Reading, pool: Sequence[Result], unit: Unit, evidence: Evidence
) -> tuple[float, str]:
    """The value in the claim's unit and the arithmetic in words. Raises NotComputable."""
    computation: Computation = reading.compute
    if isinstance(computation, Value):
        value, text = evidence.number(computation.operand, pool)
        return value, f"{computation.operand.what}: {text}"
    if isinstance(computation, Ratio):
        top, top_text = evidence.number(computation.numerator, pool)
        bottom, bottom_text = evidence.number(computation.denominator, pool)
        return _expressed(top / bottom, unit, f"{top_text} / {_grouped(bottom_text)}")
    if isinstance(computation, ShareOfParts):
        return _share_of_parts(computation, pool, unit, evidence)
    if isinstance(computation, Spread):
        return _spread(computation, pool, evidence)
    if isinstance(computation, AccuracyShare):
        return _accuracy_share(computation, pool, evidence)
    if isinstance(computation, Rules):
        return _rules(computation, pool, evidence)
    return _capacity(computation)


def _share_of_parts(
    computation: ShareOfParts, pool: Sequence[Result], unit: Unit, evidence: Evidence
) -> tuple[float, str]:
    whole, whole_text = evidence.number(computation.whole, pool)
    total, terms = 0.0, []
    for part in computation.parts:
        value, text = evidence.number(part.operand, pool)
        total += part.count * value
        terms.append(f"{part.count} × {text}")
    return _expressed(whole / total, unit, f"{whole_text} / ({' + '.join(terms)})")


def _spread(computation: Spread, pool: Sequence[Result], evidence: Evidence) -> tuple[float, str]:
    worst, parts = 0.0, []
    for scenario in computation.scenarios:
        within = [result for result in pool if result.scenario == scenario]
        try:
            references = evidence.select(computation.reference, within, "the reference")
            group = evidence.select(computation.group, within, "partners")
        except NotComputable as error:
            raise NotComputable(f"{scenario}: {error}") from error
        reference = max(result.number for result in references)
        offsets = [(100 * (r.number / reference - 1), r.submitter) for r in group]
        if computation.over == "mean of results":
            mean = sum(offset for offset, _ in offsets) / len(offsets)
            offsets = [(mean, f"mean of {len(offsets)}")]
        far, who = max(offsets, key=lambda offset: abs(offset[0]))
        low, high = min(offsets)[0], max(offsets)[0]
        span = f"{low:+.2f} % to {high:+.2f} %, " if len(offsets) > 1 else ""
        parts.append(f"{scenario} {span}largest {far:+.2f} % ({who}) of {reference:,.10g}")
        worst = max(worst, abs(far))
    return worst, "; ".join(parts)


def _accuracy_share(
    computation: AccuracyShare, pool: Sequence[Result], evidence: Evidence
) -> tuple[float, str]:
    result = evidence.one(computation.operand, pool)
    if computation.baseline is None:
        scores = reference_scores(result.round, result.benchmark)
    else:
        scores = evidence.one(computation.baseline, pool).accuracy
    reference = {name: scores.get(name, 0.0) for name in computation.metrics}
    missing = [n for n, score in reference.items() if score <= 0 or n not in result.accuracy]
    if missing:
        raise NotComputable(f"no {', '.join(missing)} of both is published")
    shares = {name: 100 * result.accuracy[name] / score for name, score in reference.items()}
    text = "; ".join(
        f"{name} {result.accuracy[name]:.4f} / {score} = {shares[name]:.2f} %"
        for name, score in reference.items()
    )
    return min(shares.values()), text


def _capacity(computation: Capacity) -> tuple[float, str]:
    value = computation.memory_gb * 8 / computation.bits / computation.overhead
    text = f"{computation.memory_gb:g} GB × 8 / {computation.bits:g} bits"
    text += f" / {computation.overhead:g}" if computation.overhead != 1 else ""
    return value, f"{text} = {value:.1f}e9"


def _rules(computation: Rules, pool: Sequence[Result], evidence: Evidence) -> tuple[float, str]:
    result = evidence.one(computation.operand, pool)
    rules = closed_rules(result.round).get(result.location, ())
    evidence.rules += rules
    counted = [rule for rule in rules if rule.of == "result"]
    if not counted:
        raise NotComputable(f"no rule of {result.name} was judged")
    missed = [rule for rule in counted if not rule.met]
    text = f"{len(counted) - len(missed)} of {len(counted)} rules met"
    text += "".join(f"; not met: {rule.rule} ({rule.found})" for rule in missed)
    apart = [rule for rule in rules if rule.of != "result" and not rule.met]
    text += "".join(
        f"; of the {rule.of}, not counted: {rule.rule} ({rule.found})" for rule in apart
    )
    return 100 * (len(counted) - len(missed)) / len(counted), text


def _expressed(ratio: float, unit: Unit, text: str) -> tuple[float, str]:
    if unit == "times":
        return ratio, f"{text} = {ratio:.3f}"
    if unit == "percent more":
        return 100 * (ratio - 1), f"{text} = {ratio:.4f}, {100 * (ratio - 1):+.2f} %"
    return 100 * ratio, f"{text} = {100 * ratio:.2f} %"


def _grouped(text: str) -> str:
    return f"({text})" if " " in text else text
