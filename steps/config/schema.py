"""Typed configuration: what `conf/` composes to, checked once before anything runs.

One class per step, named as the step. A resolved configuration has no defaults: values live in
`conf/`, classes only say which are legal, so a missing or misspelt key is an error that names it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, RootModel, Tag, model_validator
from typing_extensions import Self

from steps.base.strict import Division, Name, Positive, PositiveNumber, Rate, Scenario, Strict
from steps.config.compression import ContainerConfig as ContainerConfig
from steps.config.compression import FinetuneConfig as FinetuneConfig
from steps.config.compression import GivenBlock as GivenBlock
from steps.config.compression import LeastImportantBlock as LeastImportantBlock
from steps.config.compression import PruneConfig as PruneConfig
from steps.config.compression import QuantizeConfig as QuantizeConfig
from steps.config.compression import QuarkOptions as QuarkOptions
from steps.config.compression import StreamingOptions as StreamingOptions
from steps.config.container import ImageConfig as ImageConfig
from steps.config.engine import Engine as Engine
from steps.config.engine_planned import PlannedEngine
from steps.config.fetch import Commit, FetchSettings
from steps.config.journal import JournalSettings
from steps.config.window import WindowBounds
from steps.mlperf.rounds import COUNTS, DIVISIONS, MAY_BE_EMPTY, STATUSES, SYSTEM_TYPES

ComplianceTest = Literal["TEST01", "TEST04", "TEST06"]
"""Those that steps/judge/compliance judges."""

# ---- facts that several steps read -------------------------------------------------------------


class Seeds(Strict):
    """LoadGen's seeds of a round, as 64-bit integers."""

    qsl_rng_seed: int
    sample_index_rng_seed: int
    schedule_rng_seed: int


class Rules(Strict):
    """What a round demands of one benchmark in one scenario (`conf/round/`).

    Limits are of the p99, `latency_ms` of whole samples where tokens aren't timed. `equal_issue`:
    only whole copies of the dataset are issued.
    """

    round: Name
    loadgen_version: str
    seeds: Seeds
    min_duration_ms: Positive
    performance_sample_count: Positive
    dataset_size: Positive
    offline_min_samples: Positive
    ttft_ms: PositiveNumber | None
    tpot_ms: PositiveNumber | None
    latency_ms: PositiveNumber | None
    token_latencies: bool
    equal_issue: bool
    compliance_tests: tuple[Name, ...]


class RunRules(Strict):
    """The rules that a run itself depends on: a changed limit re-judges, it doesn't re-run."""

    round: Name
    loadgen_version: str
    min_duration_ms: Positive
    performance_sample_count: Positive


MOST_QUERIES = 10**9
"""Of a run: what LoadGen and the harness keep of each takes tens of bytes."""


class Loadgen(Strict):
    """LoadGen settings of a run; `user.conf` is rendered from these and from nothing else.

    `model`: the name that LoadGen's compiled-in mlperf.conf knows ("llama2-70b",
    "llama2-70b-interactive"). `target_qps`: queries per second, Offline's samples per second.
    `min_duration_ms`: the least duration of a performance run. `min_query_count`: the least number
    of queries. `performance_sample_count_override`: samples that LoadGen loads.

    None keeps LoadGen's own value and writes no line.
    """

    model: Name
    target_qps: Rate
    min_duration_ms: Positive | None
    min_query_count: Positive | None
    performance_sample_count_override: Positive | None

    def sample_count(self, rules: Rules | RunRules) -> int:
        """Samples of LoadGen's sample set."""
        return self.performance_sample_count_override or rules.performance_sample_count

    def least_ms(self, rules: Rules | RunRules) -> int:
        """The shortest duration of the run."""
        return self.min_duration_ms or rules.min_duration_ms


class Generation(Strict):
    """Greedy decoding; token counts include the end-of-sequence token."""

    min_tokens: Positive
    max_tokens: Positive
    eos_token_id: int


class ImageGeneration(Strict):
    """Text to image; `size` is the side of the square image in pixels."""

    steps: Positive
    guidance_scale: PositiveNumber
    size: Positive


class Bounds(Strict):
    """Accuracy bounds of a round, by the checker's names of the metrics."""

    minimum: dict[str, float]
    maximum: dict[str, float]


class Gates(Strict):
    """Accuracy gate of one benchmark: reference scores times a factor, tokens within a band.

    `reference` maps a metric ("rouge1", "rouge2", "rougeL", 0-100) to the score of the reference
    model on the same dataset; `tokens_per_sample` is that model's mean output length in tokens.
    """

    factor: Annotated[float, Field(gt=0, le=1)]
    reference: dict[str, float]
    tokens_per_sample: PositiveNumber
    tokens_per_sample_tolerance: Annotated[float, Field(gt=0, lt=1)]


# ---- artifacts ---------------------------------------------------------------------------------


class EnvironmentConfig(Strict):
    """A native environment made from `envs/<name>.lock`; `probes` are imported to prove it."""

    name: Name
    probes: tuple[str, ...]


class EmbeddedModel(Strict):
    """Source weights. `embedded` is a directory of the repository that carries a manifest."""

    name: Name
    embedded: str


class HubModel(Strict):
    """Source weights on a Hugging Face hub; without a `revision` they can be planned only."""

    name: Name
    source: Literal["huggingface"]
    repository: str
    revision: Commit | None
    fetch: FetchSettings


class StoredModel(Strict):
    """Source weights in MLCommons' storage: `repository` is the path in its bucket, `uri` the
    address of the .uri file that leads there; without one they can be planned only."""

    name: Name
    source: Literal["mlcommons"]
    repository: str
    uri: str | None
    fetch: FetchSettings


class LocalModel(Strict):
    """Source weights in a directory of this machine; `repository` says what they are a copy of."""

    name: Name
    source: Literal["local"]
    repository: str
    path: str
    fetch: FetchSettings


def _where_it_is(model: Any) -> str:
    return str(model.get("source", "embedded")) if isinstance(model, Mapping) else "embedded"


class ModelConfig(
    RootModel[
        Annotated[
            Annotated[EmbeddedModel, Tag("embedded")]
            | Annotated[HubModel, Tag("huggingface")]
            | Annotated[StoredModel, Tag("mlcommons")]
            | Annotated[LocalModel, Tag("local")],
            Discriminator(_where_it_is),
        ]
    ]
):
    """Where source weights come from."""


def _how_it_is_made(image: Any) -> str:
    return "recipe" if isinstance(image, Mapping) and "stack" in image else "unknown"


class PlannedImage(
    RootModel[
        Annotated[
            Annotated[ImageConfig, Tag("recipe")] | Annotated[ContainerConfig, Tag("unknown")],
            Discriminator(_how_it_is_made),
        ]
    ]
):
    """An image that can be planned: with a recipe of ours, or with what is known of another's."""


class DatasetConfig(Strict):
    """Prompts of a generated benchmark, by its recipe; counts are numbers of prompts."""

    name: Name
    recipe: Literal["rehearsal"]
    evaluation_count: Positive
    calibration_count: Positive


MISSING = "N/A"
"""Stands in a description for what nobody knows; the checker takes it for a value."""

VALUES: Mapping[str, tuple[str, ...]] = {
    "status": STATUSES,
    "system_type": tuple(SYSTEM_TYPES),
    "division": DIVISIONS,
}
"""Legal values of a description's fields."""


class RemoteDatasetConfig(Strict):
    """A dataset of MLCommons; `files` maps the name of each file to its md5, null if unknown."""

    name: Name
    recipe: Literal["open-orca", "mixtral-15k", "llama3.1-405b", "coco-2014", "cnn-dailymail"]
    evaluation_count: Positive
    calibration_count: Positive
    files: dict[str, str | None]


class DescribeConfig(Strict):
    """The fields of a system description that a probe can't know; the probe fills the rest.

    `required`: the fields that the round demands, in the order they are written.
    """

    name: Name
    fields: dict[str, str]
    required: tuple[str, ...]

    @model_validator(mode="after")
    def the_checker_takes_the_fields(self) -> Self:
        for name in self.required:
            if not self.fields.get(name, MISSING) and name not in MAY_BE_EMPTY:
                raise ValueError(f"{name} is empty, which the checker refuses; N/A is allowed")
        for name, legal in VALUES.items():
            value = self.fields.get(name, legal[0])
            if (value.lower() if name == "status" else value) not in legal:
                raise ValueError(f"{name} is {value!r}, the checker knows {', '.join(legal)}")
        for name in COUNTS:
            if not self.fields.get(name, "0").isdecimal():
                raise ValueError(f"{name} is {self.fields[name]!r}, it has to be a whole number")
        return self


# ---- runs --------------------------------------------------------------------------------------


class RunSettings(Strict):
    """What every LoadGen run has, whichever engine serves it."""

    scenario: Scenario
    rules: RunRules
    loadgen: Loadgen
    journal: JournalSettings

    @model_validator(mode="after")
    def loadgen_can_keep_its_samples(self) -> Self:
        queries = self.loadgen.target_qps * self.loadgen.least_ms(self.rules) / 1000
        if queries > MOST_QUERIES:
            raise ValueError(
                f"target_qps {self.loadgen.target_qps:g} is {queries:.2g} queries in the run's "
                f"duration, and LoadGen keeps every one in memory ({MOST_QUERIES:.0e} at most)"
            )
        return self


class RunConfig(RunSettings):
    """Shared by the three LoadGen runs of a scenario."""

    generation: Generation
    engine: Engine


class PlannedRunConfig(RunSettings):
    """A run by an engine that Reprise plans but doesn't start; `test` and `audit` of compliance."""

    generation: Generation | ImageGeneration
    engine: PlannedEngine
    test: str | None = None
    audit: dict[str, int] | None = None


class PerformanceRunConfig(RunConfig):
    """LoadGen's PerformanceOnly mode."""


class AccuracyRunConfig(RunConfig):
    """LoadGen's AccuracyOnly mode: every sample of the dataset once."""


class ComplianceRunConfig(RunConfig):
    """A compliance test: LoadGen overridden by the test's audit.config, given here as values."""

    test: ComplianceTest
    audit: dict[str, int]


class QuickRunConfig(Strict):
    """The first `samples` evaluation prompts, answered without LoadGen."""

    samples: Positive
    generation: Generation
    engine: Engine


class QuickCheckConfig(Strict):
    """`minimum`: the share of the source's score that a step has to leave; 0 only measures.

    The flow stops when the upper end of the 95 % interval misses it.
    """

    after: Literal["prune", "finetune", "quantize"]
    minimum: Annotated[float, Field(ge=0, le=1)]


# ---- verdicts ----------------------------------------------------------------------------------


class PerformanceCheckConfig(Strict):
    scenario: Scenario
    rules: Rules
    loadgen: Loadgen
    window: WindowBounds


NO_GATE = "none"


class ScorerWeights(Strict):
    """A network of a scorer on this machine; null: whoever runs it has to name it.

    `sha256`, or its beginning: of the file of weights. Null: any.
    """

    path: str | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] | None


class ImageWeights(Strict):
    """`clip` is a directory of Hugging Face's files, `inception` one file."""

    clip: ScorerWeights
    inception: ScorerWeights


class AccuracyCheckConfig(Strict):
    """`required` names the gate that must hold; the others are reported.

    Required "none": the open division asks for no score, and a model that was pruned is shown with
    the one it has. `scorer`: whose script's metrics are counted. `weights`: of the networks that it
    judges with. `nltk_data`: where sentences count, a directory with tokenizers/punkt_tab. `kept`:
    samples whose pictures a submission carries, by the directory's name. `reference_samples`: on
    how many prompts the reference scores were measured. Scores of another
    number of prompts are no reference.
    """

    scenario: Scenario
    dataset_size: Positive
    reference_samples: Positive
    scorer: Name
    weights: ImageWeights | None
    nltk_data: str | None
    kept: dict[Name, tuple[str, ...]]
    gates: dict[str, Gates | Bounds]
    required: Name
    window: WindowBounds

    @model_validator(mode="after")
    def required_is_a_gate(self) -> Self:
        if self.required != NO_GATE and self.required not in self.gates:
            raise ValueError(f"required gate {self.required!r} is none of {sorted(self.gates)}")
        return self

    @model_validator(mode="after")
    def reference_is_of_this_dataset(self) -> Self:
        if self.reference_samples != self.dataset_size:
            raise ValueError(
                f"the reference scores are of {self.reference_samples} prompts, "
                f"the dataset has {self.dataset_size}"
            )
        return self


class TestRule(Strict):
    """A compliance test of a round as data; steps.mlperf.rounds.Test gives it its meaning."""

    min_samples: Positive
    audit: dict[str, int]
    speed: dict[Literal["minimum", "maximum", "below"], PositiveNumber]
    delta_percent: dict[str, PositiveNumber | dict[str, PositiveNumber]]
    bounds: dict[str, dict[Literal["minimum", "maximum", "samples"], PositiveNumber]]


class ComplianceCheckConfig(Strict):
    """`answer_type` is that of the elements of a logged answer; `eos_token_id` None: no tokens."""

    scenario: Scenario
    test: ComplianceTest
    answer_type: Literal["byte", "float32", "int32", "int64"]
    eos_token_id: int | None
    rule: TestRule
    window: WindowBounds


# ---- submission ---------------------------------------------------------------------


class Measurement(Strict):
    """The five fields of a measurement's JSON that the round's checker requires."""

    input_data_types: str
    retraining: str
    starting_weights_filename: str
    weight_data_types: str
    weight_transformations: str


class Quantization(Strict):
    """The tool that made the weights of a precision, and what it was told."""

    tool: Name
    options: dict[str, Any]


class Package(Strict):
    """A benchmark's name in the submission tree, and the official one that it stands for."""

    name: Name
    official: Name


class Cell(Strict):
    """One point of the matrix: what the submission and the report say about it.

    `system_id` names it in the submission tree, `packages` are the benchmarks that its one set of
    runs is submitted as. `departures` lists, in words, where the cell leaves the rules of its
    round; a tree with any may not be submitted.
    """

    system: Name
    benchmark: Name
    compression: Name
    precision: Name
    scenario: Scenario
    system_id: Name
    division: Division
    packages: tuple[Package, ...]
    measurement: Measurement
    quantization: Quantization
    emulated: bool
    compliance_tests: tuple[Name, ...]
    departures: tuple[str, ...]

    @property
    def key(self) -> str:
        """Path of the cell below `runs/` and `verdicts/`."""
        parts = (self.system, self.benchmark, self.compression, self.precision, self.scenario)
        return "/".join(parts)

    def role(self, step: str, test: str = "") -> str:
        """Name of a run or verdict of this cell among the inputs of submission and report.

        Of several compliance tests each lies below the cell, one alone in it.
        """
        below = f"/{test}" if test and len(self.compliance_tests) > 1 else ""
        return f"{self.key}{below}/{step}"


class SubmissionConfig(Strict):
    """One submitter's tree, of both divisions if its cells are."""

    experiment: Name
    round: Name
    submitter: str
    overrides: tuple[str, ...]
    cells: tuple[Cell, ...]


class ProvenanceConfig(Strict):
    """What a submission was asked for; the rest is in its inputs."""

    experiment: Name
    round: Name
    submitter: str
    overrides: tuple[str, ...]
