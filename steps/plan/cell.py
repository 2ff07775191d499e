"""A composed cell as the planner reads it: typed, before anything is decided from it.

What a job is configured with stays as it was composed, since results are identified by that text.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError

from steps.base.errors import UserError, explain
from steps.base.record import canonical_json
from steps.base.strict import Name, Positive, Strict
from steps.config.artifacts import HubModel, ModelConfig
from steps.config.compression import FinetuneConfig, PruneConfig, UpcycleConfig
from steps.config.runtime import Runtime
from steps.config.scheduler import Scheduler
from steps.mlperf.compliance import Test


class _Part(Strict):
    """A part of the configuration that has more keys than are read here."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Named(_Part):
    name: Name


class _Environment(_Part):
    name: Name | None


class _Environments(Strict):
    engine: _Environment
    prepare: _Environment
    generator: _Environment
    analysis: _Environment
    scoring: _Environment


class _Image(_Part):
    """Without a `stack` it is known and not made."""

    name: Name
    stack: Name | None = None
    lock: Name | None = None


class _Images(Strict):
    engine: _Image | None
    prepare: _Image | None
    scoring: _Image | None


class _Quantize(_Part):
    tool: Literal["simulated", "quark", "streaming", "brevitas"]
    format: str


class _Run(_Part):
    engine: dict[str, Any]


class _QuickRun(_Run):
    """`engine`: of weights in the cell's precision, `source_engine`: of those before."""

    samples: Positive | None
    generation: dict[str, Any]
    source_engine: dict[str, Any]


class _ComplianceRun(_Run):
    """`loadgen`: of a test whose speed isn't judged, `timed_loadgen`: of one whose is."""

    rules: dict[str, Any]
    tests: tuple[str, ...]
    audits: dict[str, Test]
    loadgen: dict[str, Any]
    timed_loadgen: dict[str, Any]


class _Dataset(_Part):
    evaluation_count: Positive


class _Described(_Part):
    emulated: bool


class Steps(_Part):
    """What of `conf/steps.yaml` the planner decides from; the rest of a step is checked when its
    job is added."""

    environment: _Environments
    container: _Images
    model: ModelConfig
    dataset: _Dataset
    upcycle: UpcycleConfig | None
    quantize: _Quantize
    prune: PruneConfig | None
    finetune: FinetuneConfig | None
    quick_run: _QuickRun
    quick_check: dict[str, float]
    performance_run: _Run
    compliance_run: _ComplianceRun
    cell: _Described
    describe: dict[str, Any]
    mirror: dict[str, Any] | None
    dataset_files: dict[str, Any] | None
    training_sets: dict[str, Any] | None
    accuracy_run: dict[str, Any]
    performance_check: dict[str, Any]
    accuracy_check: dict[str, Any]
    compliance_check: dict[str, Any]

    @property
    def changes(self) -> tuple[str, ...]:
        """The steps that change the weights, in order."""
        late = self.prune is not None and self.prune.when == "after_quantize"
        order = ("quantize", "prune") if late else ("prune", "finetune", "quantize")
        wanted = {
            "upcycle": self.upcycle is not None,
            "quantize": self.quantize.format != "none" and not self.prequantized,
            "prune": self.prune is not None,
            "finetune": self.finetune is not None,
        }
        return tuple(step for step in ("upcycle", *order) if wanted[step])

    @property
    def prequantized(self) -> bool:
        source = self.model.root
        return isinstance(source, HubModel) and source.format is not None


class _Effective(_Part):
    runtime: Runtime


class TypedCell(_Part):
    """A cell's groups, as far as the planner reads them."""

    system: _Named
    benchmark: _Named
    compression: _Named
    precision: _Named
    scenario: _Named
    length: _Named
    engine: _Named
    effective: _Effective
    scheduler: Scheduler
    steps: Steps


def typed(composed: Mapping[str, Any], where: str) -> TypedCell:
    """Raises UserError naming the first keys that are missing or wrong."""
    known = {key: composed[key] for key in TypedCell.model_fields if key in composed}
    try:
        text = canonical_json(known)
    except TypeError as error:
        raise UserError(
            f"{where}: a value is no text, number, list or mapping ({error})"
        ) from error
    try:
        return TypedCell.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}; fix it in conf/ or the override") from error
