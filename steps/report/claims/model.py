"""What `ledger.yaml` holds: claims, and for each how its number can be computed.

A claim often leaves open which results it means. Every way to read it is a `Reading`; those that
are a fair reading of the claim's words decide the verdict, the others are shown beside them.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from steps.base.strict import Strict
from steps.base.yaml_text import typed
from steps.mlperf.published.result import Result

LEDGER = Path(__file__).resolve().parent / "ledger.yaml"

Unit = Literal["times", "percent", "percent more", "Tokens/s", "billion parameters"]
Verdict = Literal["supported", "not supported", "not verifiable from public data"]


class Selection(Strict):
    """Results to pick: each key that is given must match. Names are those of the table.

    `benchmark` and `scenario` come from the claim unless given. `gpus` are short names of
    accelerators, matched whole. Without a `round`, that of the ledger. Own results have no
    published submitter, division or round, so these keys don't apply to them.
    """

    source: Literal["published", "own"] = "published"
    round: str | None = None
    division: str | None = None
    submitters: tuple[str, ...] | None = None
    without_submitters: tuple[str, ...] = ()
    gpus: tuple[str, ...]
    nodes: int | None = None
    accelerators_per_node: int | None = None
    benchmark: str | None = None
    models: tuple[str, ...] | None = None
    scenario: str | None = None
    precisions: tuple[str, ...] | None = None

    def matches(self, result: Result) -> bool:
        """Whether a result matches."""
        wanted = [
            (self.benchmark, result.benchmark),
            (self.scenario, result.scenario),
            (self.nodes, result.nodes),
            (self.accelerators_per_node, result.accelerators_per_node),
        ]
        listed = [(self.precisions, result.precision), (self.models, result.model)]
        if result.source == "published":
            wanted += [(self.round, result.round), (self.division, result.division)]
            listed.append((self.submitters, result.submitter))
        return (
            result.source == self.source
            and result.gpu in self.gpus
            and result.submitter not in self.without_submitters
            and all(value in (None, found) for value, found in wanted)
            and all(values is None or found in values for values, found in listed)
        )


class Operand(Strict):
    """A number: of selected results, or a literal whose source is not a published table.

    `take`: "only" demands exactly one result; the others say how several become a number.
    """

    what: str
    select: Selection | None = None
    take: Literal["only", "highest", "mean"] = "only"
    value: float | None = None
    source: str | None = None

    @model_validator(mode="after")
    def one_origin(self) -> Self:
        if (self.select is None) == (self.value is None):
            raise ValueError(f"{self.what}: give either select or value")
        if self.value is not None and not self.source:
            raise ValueError(f"{self.what}: a literal value needs a source")
        return self


class Value(Strict):
    """The operand itself."""

    kind: Literal["value"]
    operand: Operand


class Ratio(Strict):
    """`numerator` over `denominator`."""

    kind: Literal["ratio"]
    numerator: Operand
    denominator: Operand


class Part(Strict):
    """`count` systems like the operand."""

    count: Annotated[int, Field(gt=0)]
    operand: Operand


class ShareOfParts(Strict):
    """A system's result over the sum of the results of its parts."""

    kind: Literal["share of parts"]
    whole: Operand
    parts: tuple[Part, ...]


class Spread(Strict):
    """The largest distance of any result of `group` from `reference`, in every scenario given.

    The reference is the highest of its results, in each scenario.
    """

    kind: Literal["spread"]
    group: Selection
    reference: Selection
    scenarios: tuple[str, ...]
    over: Literal["every result", "mean of results"]


class AccuracyShare(Strict):
    """The lowest of a result's accuracy metrics over those of a reference.

    The reference is the round's reference model, or `baseline`, another result. `metrics`: names
    of those that count.
    """

    kind: Literal["accuracy share"]
    operand: Operand
    metrics: tuple[str, ...]
    baseline: Operand | None = None


class Capacity(Strict):
    """Parameters in billions that `memory_gb` (1e9 bytes) holds at so many bits each.

    `overhead`: 1.1 where the model needs a tenth more than its weights.
    """

    kind: Literal["capacity"]
    memory_gb: float
    bits: float
    overhead: Annotated[float, Field(ge=1)] = 1.0


class Rules(Strict):
    """The share, in percent, of the closed division's rules that an open result meets.

    The rules are rows of the round's table (`vX.Y-closed-rules.csv`), each judged on published
    files; those about a whole submission are shown and don't count.
    """

    kind: Literal["rules"]
    operand: Operand


Computation = Annotated[
    Value | Ratio | ShareOfParts | Spread | AccuracyShare | Capacity | Rules,
    Field(discriminator="kind"),
]


class Reading(Strict):
    """One way to compute a claim's number. `decides`: it counts for the verdict. `named`: it is
    the one that the claim's words name, so that it alone decides."""

    words: str
    decides: bool
    named: bool = False
    compute: Computation


class Stated(Strict):
    """What the claim says. `meets` tells how a computed value agrees with it.

    "rounds to": equal after rounding to `decimals`; "parity", "linear": within that tolerance of
    `value` (conf/tolerances.yaml); "at most", "at least": as it says.
    """

    words: str
    value: float
    unit: Unit
    decimals: int
    meets: Literal["rounds to", "parity", "linear", "at most", "at least"]


class Claim(Strict):
    """One quantitative claim. `benchmarks`: every reading is tried on each of them."""

    id: str
    section: str
    claim: str
    benchmarks: tuple[str, ...]
    scenario: str
    systems: str
    stated: Stated
    readings: tuple[Reading, ...]
    note: str = ""


class Ledger(Strict):
    """The whole file. `source` is where the claims were made; `round` the one they are about.

    `selections` only gives names to what several claims use, by YAML's anchors.
    """

    source: str
    round: str
    selections: dict[str, Selection] = Field(default_factory=dict)
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def ids_are_unique(self) -> Self:
        ids = [claim.id for claim in self.claims]
        if len(ids) != len(set(ids)):
            raise ValueError("two claims have the same id")
        return self


@cache
def load(path: Path = LEDGER) -> Ledger:
    """Raises UserError naming the claim's key that is wrong."""
    return typed(path, Ledger)
