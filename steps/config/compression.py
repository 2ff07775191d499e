"""Typed configuration of what is done to weights: upcycling, quantization, pruning, fine-tuning.

An option with a default of None is one that the tool was not given: it keeps the tool's own.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from steps.base.strict import Name, NotNegative, Positive, PositiveNumber, Strict
from steps.config.fetch import Commit, Sha256
from steps.config.results import Result


class UpcycleConfig(Strict):
    """A mixture of experts made of dense weights. Experts stand in teams of `experts_per_token`,
    which work on a token together.

    `noise`: of each expert's gate_proj and up_proj, as a share of their standard deviation.
    `opposed_noise`: of down_proj, the same, but it sums to zero in a team. `router`: the standard
    deviation of the router's weights, which are drawn; a team's are the same. `seed`: of all.
    """

    experts: Positive
    experts_per_token: Positive
    noise: Annotated[float, Field(ge=0, le=1)]
    opposed_noise: Annotated[float, Field(ge=0, le=8)]
    router: PositiveNumber
    seed: NotNegative

    @model_validator(mode="after")
    def experts_stand_in_whole_teams(self) -> Self:
        if self.experts % self.experts_per_token:
            raise ValueError(
                f"{self.experts} experts aren't whole teams of {self.experts_per_token}, which "
                "work on a token together"
            )
        if self.experts_per_token == 1 and self.opposed_noise:
            raise ValueError("opposed_noise needs experts_per_token above 1: one sums to nothing")
        return self


class NoOptions(Strict):
    """The simulated formats have none."""


class QuarkOptions(Strict):
    """Options of AMD Quark's quantize_quark.py, by its names without dashes.

    `exclude_layers` are patterns of layers that keep their precision; `num_calib_data` counts
    samples of the calibration set, `seq_len` is in tokens. `calibrate_answers` is ours: samples go
    on with their true answers, since static scales of prompts alone don't fit what is generated.
    """

    version: str
    quant_scheme: Literal["w_fp8_a_fp8", "w_mxfp4_a_mxfp4"]
    kv_cache_dtype: Literal["fp8"]
    exclude_layers: tuple[str, ...]
    seq_len: Positive
    data_type: Literal["float16", "bfloat16", "float32", "auto"] | None = None
    quant_algo: Literal["autosmoothquant", "gptq"] | None = None
    group_size: Positive | None = None
    num_calib_data: Positive | None = None
    min_kv_scale: PositiveNumber | None = None
    custom_mode: Literal["fp8"] | None = None
    model_attn_implementation: Literal["sdpa"] | None = None
    batch_size: Positive | None = None
    calibrate_answers: bool = False

    @property
    def static(self) -> bool:
        """Activations have scales that calibration measures."""
        return self.quant_scheme == "w_fp8_a_fp8"


class BrevitasOptions(Strict):
    """Options of quant_sdxl.py; `skipped` are parts of the names of layers left as they are."""

    revision: str
    calibration_steps: Positive
    calibration_prompts: Positive
    guidance_scale: PositiveNumber
    quantize_sdp: bool
    activation_equalization_alpha: PositiveNumber
    skipped: tuple[str, ...]


class StreamingOptions(Strict):
    """MXFP4 weights made shard by shard, without calibration.

    `activations` are quantized by the engine as it runs, or not at all. `exclude` holds glob
    patterns of modules that stay as they are ("lm_head", "*.gate"). `rounded` stores the rounded
    values in the source's dtype, for engines without the format. `workers`: shards rewritten at
    once; each takes a thread and a few megabytes.
    """

    rounded: bool
    activations: Literal["mxfp4", "none"]
    scale_calculation_mode: Literal["even", "floor"]
    exclude: tuple[str, ...]
    workers: Positive

    @model_validator(mode="after")
    def rounded_weights_have_plain_activations(self) -> Self:
        if self.rounded and self.activations != "none":
            raise ValueError("rounded weights are plain ones: their activations aren't quantized")
        return self


class QuantizeConfig(Strict):
    """Weights in another precision.

    Format "none" keeps the source weights, and no job is planned. Tool "simulated" quantizes and
    dequantizes back to bf16; "streaming" is Reprise's own, for models larger than memory.
    """

    model: Name
    tool: Literal["simulated", "quark", "streaming", "brevitas"]
    format: Literal["none", "fp8", "mxfp4", "int2", "int8-fp8"]
    options: QuarkOptions | BrevitasOptions | StreamingOptions | NoOptions

    @model_validator(mode="after")
    def options_are_of_the_tool(self) -> Self:
        fitting = {
            "simulated": NoOptions,
            "quark": QuarkOptions,
            "streaming": StreamingOptions,
            "brevitas": BrevitasOptions,
        }
        if self.format != "none" and not isinstance(self.options, fitting[self.tool]):
            raise ValueError(f"format {self.format!r} has no options for {self.tool}")
        return self


class GivenBlock(Strict):
    """Layers `first` to `last`, both included, counted from 0."""

    by: Literal["layers"]
    first: NotNegative
    last: NotNegative

    @property
    def count(self) -> int:
        return self.last - self.first + 1


class LeastImportantBlock(Strict):
    """The `count` neighbouring layers that do least on the first `samples` calibration prompts."""

    by: Literal["ffn_output", "angular_distance"]
    count: Positive
    samples: Positive
    dtype: Literal["bfloat16", "float16", "float32"]
    device: Literal["cpu", "auto"]


class PruneConfig(Strict):
    """Depth pruning of a model that has `layers` layers.

    `when`: the 21 % model was quantized first, the 33 % model is pruned in bf16, fine-tuned and
    then quantized. `workers`: shards rewritten at once; each takes a thread and a few megabytes.
    """

    layers: Positive
    block: Annotated[GivenBlock | LeastImportantBlock, Field(discriminator="by")]
    when: Literal["after_quantize", "before_quantize"]
    workers: Positive

    @model_validator(mode="after")
    def block_lies_within(self) -> Self:
        block = self.block
        if isinstance(block, GivenBlock) and not block.first <= block.last < self.layers:
            raise ValueError(
                f"layers {block.first} to {block.last} are no range of {self.layers} layers"
            )
        if block.count >= self.layers:
            raise ValueError(f"a block of {block.count} layers leaves none of {self.layers}")
        return self

    @property
    def dropped(self) -> float:
        """Share of the layers that go."""
        return self.block.count / self.layers


class NotesData(Strict):
    """The first prompts of the rehearsal's training stream that no evaluation prompt is in."""

    kind: Literal["notes"]
    training_samples: Positive
    validation_samples: Positive


class Haystack(Strict):
    """The text that needles are hidden in, as RULER's own script writes it; without a `path` that
    script downloads it."""

    path: str | None
    sha256: Sha256 | None


class TrainingSetsConfig(Strict):
    """RULER's `niah_multivalue` sets, one for each of `lengths` (tokens) by `needles`.

    Made by the generator in the git repository `generator` at `commit`, `samples` each, `values` in
    the form of its prompt template `template`; or taken from `directory`, a file each, named as
    `digests` names them. `nltk_data`: a directory with tokenizers/punkt_tab; null: NLTK downloads
    it. `processes` generate at once, each for at most `limit_s`. `offline`: nothing is fetched.
    """

    generator: str
    commit: Commit
    lengths: Annotated[tuple[Positive, ...], Field(min_length=1)]
    needles: Annotated[tuple[Positive, ...], Field(min_length=1)]
    samples: Positive
    values: Literal["uuids", "numbers", "words"]
    template: Name
    seed: NotNegative
    haystack: Haystack
    nltk_data: str | None
    directory: str | None
    digests: dict[str, Sha256]
    processes: Positive
    limit_s: PositiveNumber
    offline: bool

    @property
    def names(self) -> dict[str, tuple[int, int]]:
        """Length and needles of each set, by its file's name."""
        return {
            f"niah_multivalue-{length}-{needles}.jsonl": (length, needles)
            for length in self.lengths
            for needles in self.needles
        }


class TrainingSetsResult(Result):
    """`commit` of the generator, and `haystack_sha256` of the text that needles are hidden in, of
    sets that were made here."""

    made: Literal["here", "elsewhere"]
    commit: Commit | None = None
    haystack_sha256: Sha256 | None = None


class RulerData(Strict):
    """RULER's sets, made by the step training_sets.

    Of each set the first samples are trained on and the last ones are for validation. `end` follows
    the answers, which are joined by line ends.
    """

    kind: Literal["ruler"]
    training_samples_per_set: Positive
    validation_samples_per_set: Positive
    end: str


class LoraConfig(Strict):
    """Low-rank adapters on every linear layer but the head; on a mixture's attention only."""

    rank: Positive
    alpha: Positive


class FinetuneConfig(Strict):
    """Supervised training of LoRA adapters by transformers' Trainer and peft, merged afterwards.

    `cutoff_len` in tokens: longer samples are cut. `dtype` is that of the weights while adapters
    are trained beside them. `processes`: one per accelerator; with a `deepspeed_zero_stage` they
    share the model, else each holds it. `checkpoint_step`: training ends there and its adapters are
    merged; None: at the end of the last epoch. Without a step done within `stall_limit_s` it counts
    as hung. `merge_workers`: shards that adapters are merged into at once.
    """

    seed: NotNegative
    data: Annotated[NotesData | RulerData, Field(discriminator="kind")]
    lora: LoraConfig
    learning_rate: PositiveNumber
    epochs: Positive
    lr_scheduler: Literal["cosine", "linear", "constant"]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    max_grad_norm: PositiveNumber
    cutoff_len: Positive
    per_device_train_batch_size: Positive
    gradient_accumulation_steps: Positive
    gradient_checkpointing: bool
    dtype: Literal["bfloat16", "float32"]
    processes: Positive
    deepspeed_zero_stage: Literal[2, 3] | None
    save_steps: Positive
    checkpoint_step: Positive | None
    stall_limit_s: PositiveNumber
    merge_workers: Positive


class ContainerConfig(Strict):
    """A container image: what it is built on and which sources and patches are added to it.

    `components` maps a source to its revision. A base without a digest may change under its tag.
    """

    name: Name
    tag: str
    base: str
    architecture: Name
    components: dict[str, str]
    patches: tuple[str, ...]
