"""What a check publishes: whether a result is valid, every complaint about it, and its numbers.

One class per check, named as its configuration. A result that isn't valid is a value like any
other; a check raises UserError only for what it can't read.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError, model_validator
from typing_extensions import Self

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.base.strict import NotNegative, Positive, Strict
from steps.config.checks import NO_GATE
from steps.config.window import Window

Value = str | float | bool | None


class Complaint(Strict):
    """One thing that is wrong: `words` say it whole, `value` and `limit` are its numbers.

    `limit` is a bound, or what `value` had to be. `fix`: what to do about it; may be empty.
    """

    code: str
    words: str
    value: Value = None
    limit: Value = None
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.words}; {self.fix}" if self.fix else self.words


def plain(value: object) -> Value:
    """A value of a log as a complaint keeps it: JSON has no number for infinity."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return str(value)


class Verdict(Strict):
    """What every check says. `window` is that of the run which was judged. `differences`: what its
    engine made of its settings and wasn't asked for, a sentence each; the page has them, and no
    verdict hangs on them: they break no rule of MLPerf's."""

    holds: bool
    complaints: tuple[Complaint, ...]
    window: Window | None = None
    differences: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_a_complaint_or_holds(self) -> Self:
        if self.holds == bool(self.complaints):
            raise ValueError("a verdict has complaints if it says no, and none if it says yes")
        return self

    @property
    def why(self) -> str:
        """One line: why it isn't valid, and what disturbed the run; empty if it is valid."""
        if self.holds:
            return ""
        first, more = self.complaints[0], len(self.complaints) - 1
        text = f"{first}{f' (and {more} more)' if more else ''}"
        disturbed = "" if self.window is None else ", ".join(map(str, self.window.disturbances))
        return f"{text}; {disturbed}" if disturbed else text


class Limits(Strict):
    """Limits of the 99th percentiles, in ms; None: no limit."""

    ttft_ms: float | None
    tpot_ms: float | None
    latency_ms: float | None


Percentiles = dict[str, float]
"""In ms, by "p50" to "p99.9"."""


class PerformanceVerdict(Verdict):
    """`value` is the round's metric in `unit`: tokens per second if tokens are timed, else samples,
    which are queries in Server. Untimed distributions have the value None.
    """

    metric: str
    value: float
    unit: str
    samples_per_second: float
    query_count: NotNegative
    target_qps: float
    ttft_ms: Percentiles | None
    tpot_ms: Percentiles | None
    latency_ms: Percentiles | None
    limits: Limits
    min_duration_ms: Positive
    loadgen_version: str


class Metric(Strict):
    """A score against a gate's bounds; `ratio` is of the reference, or of the nearest bound."""

    score: float
    minimum: float | None = None
    maximum: float | None = None
    ratio: float
    passed: bool


class GateVerdict(Strict):
    """One accuracy gate, by metric."""

    passed: bool
    metrics: dict[str, Metric]


class AccuracyVerdict(Verdict):
    """`scores` by the names of the script that prints them; both are empty for a run that proves
    nothing. `required` names the gate that has to hold, or none."""

    scores: dict[str, float]
    gates: dict[str, GateVerdict]
    required: str

    @property
    def reference_gate(self) -> str:
        """The gate whose reference the scores are shown against; they have one reference."""
        return self.required if self.required != NO_GATE else min(self.gates)


class ComplianceVerdict(Verdict):
    """The last three are TEST06's."""

    test: str
    checked_samples: NotNegative | None = None
    eos_terminated: NotNegative | None = None
    first_token: str | None = None


class QuickVerdict(Verdict):
    """`ratio` is percent of the source's mean ROUGE-L, `low` and `high` its 95 % interval,
    `minimum` what is wanted, `gigabytes` what the weights take on disk."""

    after: str
    samples: Positive
    score: float
    ratio: float
    low: float
    high: float
    minimum: float
    gigabytes: float


CLASSES: Mapping[str, type[Verdict]] = {
    "performance_check": PerformanceVerdict,
    "accuracy_check": AccuracyVerdict,
    "compliance_check": ComplianceVerdict,
    "quick_check": QuickVerdict,
}

Kind = TypeVar("Kind", bound=Verdict)


def read(path: Path, kind: type[Kind]) -> Kind:
    """The verdict of a check's manifest; raises UserError if it is none."""
    return of(Manifest.read(path), kind)


def of(manifest: Manifest, kind: type[Kind]) -> Kind:
    """As `read`; results are JSON, so tuples are lists there."""
    made = CLASSES.get(manifest.step)
    if made is None or not issubclass(made, kind):
        raise UserError(f"{manifest.directory} holds no verdict but a result of {manifest.step}")
    try:
        found = made.model_validate(manifest.result, strict=False)
    except ValidationError as error:
        raise UserError(
            f"{manifest.directory} holds a verdict of another version; ./reproduce judges again"
        ) from error
    assert isinstance(found, kind)
    return found


def as_result(verdict: Verdict) -> dict[str, Any]:
    """What a check leaves as its step's result."""
    return verdict.model_dump(mode="json")
