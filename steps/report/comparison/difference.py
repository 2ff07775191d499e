"""Two sets of results side by side: how they differ in numbers and in configuration."""

import re
from collections.abc import Mapping, Sequence

from steps.base.strict import Strict
from steps.mlperf.accuracy_text import LABELS
from steps.mlperf.published.result import Result


class Side(Strict):
    """One of the two.

    `configurations` maps a result's location to dotted keys and values; `systems`
    a platform to the fields of its description. Empty where a side doesn't say.

    `missing`: what an unfinished experiment lacks, as phrases.
    """

    name: str
    results: tuple[Result, ...]
    configurations: dict[str, dict[str, str]]
    systems: dict[str, dict[str, str]]
    missing: tuple[str, ...] = ()


class Change(Strict):
    """One property of both; an empty text where a side doesn't say."""

    what: str
    a: str
    b: str


class Pair(Strict):
    """Two results of the same benchmark and scenario. `ratio` is B's value over A's.

    It is None where one of them can't be compared; `reason` says why. `remark`: what the ratio
    must not be read without.
    """

    title: str
    a: str
    b: str
    ratio: float | None
    reason: str
    remark: str
    numbers: tuple[Change, ...]
    configuration: tuple[Change, ...]


class Difference(Strict):
    """All pairs, and results on one side only."""

    a: str
    b: str
    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


NUMBERS = (
    ("target_qps", "target_qps"),
    ("samples/s", "samples_per_second"),
    ("p99 TTFT, ms", "ttft_p99_ms"),
    ("p99 TPOT, ms", "tpot_p99_ms"),
    ("duration, s", "duration_s"),
)
SETTINGS = (
    ("accelerators", "accelerators"),
    ("round", "round"),
    ("division", "division"),
    ("submitter", "submitter"),
    ("model", "model"),
    ("precision", "precision"),
    ("accelerator", "accelerator"),
    ("nodes", "nodes"),
    ("accelerators a node", "accelerators_per_node"),
    ("host processor", "processor"),
    ("host processors a node", "processors_per_node"),
    ("software", "software"),
    ("operating system", "operating_system"),
)


def compare(a: Side, b: Side) -> Difference:
    """Pairs by benchmark, scenario and, where a side has several, precision and platform."""
    pairs: list[Pair] = []
    left = list(b.results)
    only_a = []
    for mine in a.results:
        theirs = _match(mine, left, many=len(a.results) > 1)
        if theirs is None:
            only_a.append(mine)
            continue
        left.remove(theirs)
        pairs.append(_pair(mine, theirs, a, b))
    return Difference(
        a=a.name,
        b=b.name,
        pairs=tuple(pairs),
        only_a=(*(_title(result) for result in only_a), *a.missing),
        only_b=(*(_title(result) for result in left), *b.missing),
    )


def _match(mine: Result, others: Sequence[Result], many: bool) -> Result | None:
    """Same benchmark and scenario; the closest in precision, compression, accelerator, platform."""
    if not many and len(others) == 1:
        return others[0]
    alike = [
        other
        for other in others
        if (other.benchmark, other.scenario) == (mine.benchmark, mine.scenario)
    ]
    wanted = ("precision", "model", "compression", "gpu", "platform")
    return max(
        alike,
        key=lambda other: [getattr(other, name) == getattr(mine, name) for name in wanted],
        default=None,
    )


def _pair(mine: Result, theirs: Result, a: Side, b: Side) -> Pair:
    ratio, reason = None, ""
    problems = [f"{r.name}: {r.reason}" for r in (mine, theirs) if r.reason]
    if problems:
        reason = "; ".join(problems)
    elif (mine.benchmark, mine.scenario) != (theirs.benchmark, theirs.scenario):
        reason = "different benchmarks or scenarios"
    elif mine.unit != theirs.unit:
        reason = f"different units, {mine.unit} and {theirs.unit}"
    else:
        ratio = theirs.number / mine.number
    numbers = [
        Change(what=f"result, {_units(mine, theirs)}", a=_text(mine.value), b=_text(theirs.value)),
        *_rates(mine, theirs),
        *(
            Change(what=what, a=_text(_fact(mine, name)), b=_text(_fact(theirs, name)))
            for what, name in NUMBERS
        ),
        *_accuracy(mine, theirs),
    ]
    settings = [
        Change(what=what, a=_text(getattr(mine, name)), b=_text(getattr(theirs, name)))
        for what, name in SETTINGS
    ]
    settings += [
        Change(what=what, a=_text(_fact(mine, name)), b=_text(_fact(theirs, name)))
        for what, name in (("LoadGen", "loadgen_version"), ("min_duration, s", "min_duration_s"))
    ]
    if mine.compression and theirs.compression:
        settings.append(Change(what="compression", a=mine.compression, b=theirs.compression))
    for ours, others in (
        (_configuration(a, mine), _configuration(b, theirs)),
        (a.systems.get(mine.platform, {}), b.systems.get(theirs.platform, {})),
    ):
        # A side that says nothing differs in nothing that could be shown.
        if ours and others:
            settings += _changes(ours, others)
    return Pair(
        title=_title(mine) if ratio is not None else f"{_title(mine)} and {_title(theirs)}",
        a=mine.name,
        b=theirs.name,
        ratio=ratio,
        reason=reason,
        remark=_remark(mine, theirs),
        numbers=tuple(n for n in numbers if n.a or n.b),
        configuration=tuple(one for one in settings if one.a != one.b),
    )


def _rates(mine: Result, theirs: Result) -> list[Change]:
    """Per node and per accelerator, where the two have different counts."""
    found = []
    for what, name in PARTS:
        shares = _shares(mine, theirs, name)
        if shares is not None:
            a, b = (_share(value) for value in shares)
            found.append(Change(what=f"result per {what}, {mine.unit}", a=a, b=b))
    return found


PARTS = (("node", "nodes"), ("accelerator", "accelerators"))
"""What a system may have several of, and the property of a result that counts them."""


def _shares(mine: Result, theirs: Result, count: str) -> tuple[float, float] | None:
    """Both throughputs over how many each has; None where that says nothing: both have as many, one
    doesn't say, or what was measured is a latency.
    """
    a, b = (getattr(result, count) for result in (mine, theirs))
    divisible = mine.unit == theirs.unit and mine.unit.endswith("/s")
    if not (divisible and a and b and mine.value and theirs.value) or a == b:
        return None
    return mine.value / a, theirs.value / b


def _share(value: float) -> str:
    return f"{value:,.2f}" if value >= 100 else f"{value:.6g}"


def _units(mine: Result, theirs: Result) -> str:
    return " and ".join(dict.fromkeys((mine.unit, theirs.unit)))


def _accuracy(mine: Result, theirs: Result) -> list[Change]:
    """Named as the scripts print them, unlike publications ("ROUGE1" is "rouge1")."""
    ours, others = (
        {_printed(name): score for name, score in result.accuracy.items()}
        for result in (mine, theirs)
    )
    return [
        Change(what=f"accuracy {name}", a=_text(ours.get(name)), b=_text(others.get(name)))
        for name in dict.fromkeys([*ours, *others])
    ]


def _printed(metric: str) -> str:
    return LABELS[metric][0].strip("':") if metric in LABELS else metric


def _remark(mine: Result, theirs: Result) -> str:
    """A small or pruned model may be measured under a benchmark's name, and a larger system is
    faster by its size.
    """
    found = []
    one, other = (_LEVEL.sub("", result.model.replace("_", ".")) for result in (mine, theirs))
    if one != other:
        found.append(f"of different models, {mine.model} and {theirs.model}")
    for what, count in reversed(PARTS):
        shares = _shares(mine, theirs, count)
        if shares is not None:
            counts = f"{getattr(mine, count)} and {getattr(theirs, count)} {what}s"
            found.append(f"of {counts}: {100 * (shares[1] / shares[0] - 1):+.2f} % per {what}")
            break
    return "; ".join(found)


_LEVEL = re.compile(r"-9\d(\.\d)?$")


def _changes(ours: Mapping[str, str], others: Mapping[str, str]) -> list[Change]:
    return [
        Change(what=key, a=ours.get(key, ""), b=others.get(key, ""))
        for key in sorted({*ours, *others})
    ]


def _configuration(side: Side, result: Result) -> dict[str, str]:
    return side.configurations.get(result.location, {})


def _title(result: Result) -> str:
    shorter = result.compression if result.compression != "none" else ""
    kind = " ".join(filter(None, (result.scenario, result.precision, shorter)))
    return f"{result.model} {kind}, {result.platform}"


def _fact(result: Result, name: str) -> object:
    return getattr(result.run, name, None)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.10g}"
    return "" if value is None else str(value)
