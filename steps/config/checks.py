"""Configuration of the steps that judge runs."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from steps.base.strict import Name, Positive, PositiveNumber, Scenario, Strict
from steps.config.languages import Language
from steps.config.loadgen import Loadgen, Rules
from steps.config.runs import ComplianceTest
from steps.config.scale import Mark
from steps.config.window import WindowBounds
from steps.mlperf.compliance import Test


class Bounds(Strict):
    """Accuracy bounds of a round, both inclusive, by the checker's names of the metrics.

    `minimum`: what a metric has to reach. `maximum`: what it may not exceed.
    """

    minimum: dict[str, PositiveNumber]
    maximum: dict[str, PositiveNumber]


class Gates(Strict):
    """Accuracy gate of one benchmark: reference scores times a factor, tokens within a band.

    `factor`: 0.99 or 0.999, as the gate is called. `reference`: by metric ("rouge1", "rouge2",
    "rougeL", 0-100) the score of the reference model on the same dataset. `tokens_per_sample`: that
    model's mean output length in tokens. `tokens_per_sample_tolerance`: how far the mean may be
    from it, as a share.
    """

    factor: Annotated[float, Field(gt=0, le=1)]
    reference: dict[str, float]
    tokens_per_sample: PositiveNumber
    tokens_per_sample_tolerance: Annotated[float, Field(gt=0, lt=1)]


class QuickCheckConfig(Strict):
    """What a step may cost in accuracy, before runs are started.

    `after`: the step that changed the weights. `minimum`: the share of the source's score that it
    has to leave; 0 only measures. The flow stops when the upper end of the 95 % interval misses it.
    """

    after: Literal["upcycle", "prune", "finetune", "quantize"]
    minimum: Annotated[float, Field(ge=0, le=1)]


class Judged(Strict):
    """`rehearsal`: the run is of small weights and data, for which no submission takes it."""

    rehearsal: Mark | None = None


class PerformanceCheckConfig(Judged):
    """What a performance run is judged by.

    `scenario`: of the run. `rules`: the round's. `loadgen`: the settings that the log has to show.
    `window`: which disturbances of the machine the verdict names.
    """

    scenario: Scenario
    rules: Rules
    loadgen: Loadgen
    window: WindowBounds


NO_GATE = "none"


class ScorerWeights(Strict):
    """A network of a scorer on this machine.

    `path`: of its directory or file; null: the user has to name it. `sha256`: of the file of
    weights, whole or its beginning; null: any.
    """

    path: str | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] | None


class ImageWeights(Strict):
    """What pictures are scored with. Paths that aren't absolute are below the checkout.

    `clip`: a directory of Hugging Face's files. `inception`: one file. `statistics`: of Inception's
    features; null: the dataset has them. `side_pixels`: of the pictures.
    """

    clip: ScorerWeights
    inception: ScorerWeights
    statistics: ScorerWeights | None
    side_pixels: Positive


class AccuracyCheckConfig(Judged):
    """What an accuracy run is judged by.

    `scenario`: of the run. `dataset_size`: samples that have to be answered. `reference_samples`:
    on how many prompts the reference scores were measured; scores of another number are no
    reference. `scorer`: whose script's metrics are counted. `languages`: of the code that is run to
    score it. `weights`: of the networks that it judges with. `nltk_data`: where sentences count, a
    directory with tokenizers/punkt_tab. `kept`: samples whose pictures a submission carries, by the
    directory's name. `gates`: what is compared; all of them are reported. `required`: the gate that
    must hold; "none": the open division asks for no score, and a model that was pruned is shown
    with the one it has. `window`: which disturbances of the machine the verdict names.
    """

    scenario: Scenario
    dataset_size: Positive
    reference_samples: Positive
    scorer: Name
    languages: tuple[Language, ...]
    weights: ImageWeights | None
    nltk_data: str | None
    kept: dict[Name, tuple[str, ...]]
    gates: dict[str, Gates | Bounds]
    required: Name
    window: WindowBounds

    @model_validator(mode="after")
    def required_is_a_gate(self) -> Self:
        if self.required != NO_GATE and self.required not in self.gates:
            raise ValueError(f"required gate {self.required!r} isn't one of {sorted(self.gates)}")
        return self

    @model_validator(mode="after")
    def reference_is_of_this_dataset(self) -> Self:
        if self.reference_samples != self.dataset_size:
            raise ValueError(
                f"the reference scores are of {self.reference_samples} prompts, "
                f"the dataset has {self.dataset_size}"
            )
        return self


class ScoredAlike(Strict):
    """TEST01 of a benchmark whose answers may differ if their scores don't.

    `official`: the benchmark that has the metrics. `metrics`: those that are compared. `weights`:
    of the networks that score.
    """

    official: Name
    metrics: tuple[str, ...]
    weights: ImageWeights


class ComplianceCheckConfig(Judged):
    """What a compliance run is judged by.

    `scenario`: of the run. `test`: which one. `answer_type`: of the elements of a logged answer.
    `eos_token_id`: the token, or tokens, that end an answer; None: no tokens. `max_tokens`: an
    answer is cut there; None: it isn't. `rule`: the round's.
    `window`: which disturbances of the machine the verdict names. `official`: the benchmark whose
    bounds a test has; None: it has none. `scorer`: what TEST07 is scored by. `scores`: of TEST01
    alone; None: both runs have to answer alike.
    """

    scenario: Scenario
    test: ComplianceTest
    answer_type: Literal["byte", "float32", "int32", "int64"]
    eos_token_id: int | tuple[int, ...] | None
    max_tokens: Positive | None
    rule: Test
    window: WindowBounds
    official: Name | None = None
    scorer: Name | None = None
    scores: ScoredAlike | None = None
