"""How a system of several nodes compares with the sum of its parts."""

from collections.abc import Sequence

from steps.base.strict import Strict
from steps.mlperf.published import table
from steps.mlperf.published.result import Result

FALLBACK = "AMD"


class PartOf(Strict):
    """`accelerators`, in nodes like the one of the result `name`, whose logs are at `link`.

    `per_node`: accelerators of that node. The last node may have fewer in use.
    """

    accelerators: int
    per_node: int
    gpu: str
    name: str
    link: str
    submitter: str
    value: float

    @property
    def nodes(self) -> str:
        """ "4", or "87/8" of ten nodes of eight and one of seven."""
        whole, rest = divmod(self.accelerators, self.per_node)
        return f"{self.accelerators}/{self.per_node}" if rest else str(whole)

    @property
    def expected(self) -> float:
        """What so many accelerators give at the single node's rate of each."""
        return self.accelerators * self.value / self.per_node


class Scaling(Strict):
    """`efficiency` is the value over the sum of the parts, as a share; None if a part is unknown.

    `accelerators`: of the whole system, None if the source doesn't say. `reason` says which part
    is unknown. A single node is its own part: efficiency 1.
    """

    name: str
    source: str
    submitter: str
    platform: str
    link: str
    gpu: str
    benchmark: str
    scenario: str
    precision: str
    nodes: int
    accelerators: int | None
    value: float
    unit: str
    efficiency: float | None
    parts: tuple[PartOf, ...]
    reason: str

    @property
    def arithmetic(self) -> str:
        """ "169,197 / (4 × 27,854.4 MangoBoost + ...)"."""
        if self.efficiency is None:
            return self.reason
        terms = " + ".join(f"{p.nodes} × {p.value:,.10g} {p.submitter}" for p in self.parts)
        return f"{self.value:,.10g} / ({terms}) = {100 * self.efficiency:.2f} %"


def scaling(results: Sequence[Result]) -> tuple[Scaling, ...]:
    """Every comparable result of more than one node, and the single nodes they rest on."""
    usable = [result for result in results if result.comparable and result.gpu and result.nodes]
    singles = [result for result in usable if result.nodes == 1]
    many = [_scaled(result, singles) for result in usable if (result.nodes or 0) > 1]
    used = {part.link for found in many for part in found.parts}
    ones = [_scaled(result, singles) for result in singles if table.link(result) in used]
    return tuple(sorted([*ones, *many], key=_order))


def _order(found: Scaling) -> tuple[object, ...]:
    return (found.gpu, found.benchmark, found.scenario, found.nodes, found.submitter, found.name)


def _scaled(result: Result, singles: Sequence[Result]) -> Scaling:
    parts: list[PartOf] = []
    reason = ""
    for gpu, count in result.gpus.items():
        single = result if result.nodes == 1 else _single(result, gpu, singles)
        if single is None:
            reason = f"no single-node {gpu} result of the same kind is known"
            break
        parts.append(
            PartOf(
                accelerators=count,
                per_node=single.accelerators_per_node or count,
                gpu=gpu,
                name=single.name,
                link=table.link(single),
                submitter=single.submitter,
                value=single.number,
            )
        )
    total = sum(part.expected for part in parts)
    return Scaling(
        name=result.name,
        source=result.source,
        submitter=result.submitter,
        platform=result.platform,
        link=table.link(result),
        gpu=result.gpu,
        benchmark=result.benchmark,
        scenario=result.scenario,
        precision=result.precision,
        nodes=result.nodes or 0,
        accelerators=result.accelerators,
        value=result.number,
        unit=result.unit,
        efficiency=None if reason or total <= 0 else result.number / total,
        parts=tuple(parts),
        reason=reason,
    )


def _single(result: Result, gpu: str, singles: Sequence[Result]) -> Result | None:
    """The highest single-node result of the submitter, of one of a joint submission's parties
    ("Supermicro_MangoBoost"), or of AMD; own systems are compared with own nodes first."""
    alike = [
        single
        for single in singles
        if (single.gpu, *_kind(single)) == (gpu, *_kind(result))
        and single.compression in ("", result.compression)
        and single.accelerators_per_node == result.accelerators_per_node
        and single.round == result.round
    ]
    for submitter in (result.submitter, *result.submitter.split("_"), FALLBACK):
        same = [
            single
            for single in alike
            if single.submitter == submitter
            and (single.source == result.source or submitter == FALLBACK)
        ]
        if same:
            return max(same, key=lambda single: single.number)
    return None


def _kind(result: Result) -> tuple[str, ...]:
    """The properties in which a cluster's result and its nodes' must agree."""
    return (
        result.benchmark,
        result.model,
        result.scenario,
        result.precision,
        result.unit,
    )
