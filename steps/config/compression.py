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
    """A mixture of experts made of dense weights.

    `experts`: of each layer. `experts_per_token`: how many of them work on a token together; they
    stand in teams of so many. `noise`: of each expert's gate_proj and up_proj, as a share of their
    standard deviation. `opposed_noise`: of down_proj, the same, but it sums to zero in a team.
    `router`: the standard deviation of the router's weights, which are drawn; a team's are the
    same. `seed`: of all that is drawn.
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

    `version`: of the wheel amd-quark; the step refuses another that is installed. `quant_scheme`:
    the format of weights and activations. `kv_cache_dtype`: of the KV cache, whose scales are
    static. `exclude_layers`: patterns of layers that keep their precision. `seq_len`: tokens that a
    sample of calibration is cut to, or, for an algorithm, has. `data_type`: what the weights are
    loaded in; "auto" or null: what they are stored in. `quant_algo`: what adapts weights before
    they are rounded; null: nothing. `group_size`: weights that share a scale: MXFP4's 32.
    `num_calib_data`: samples of the calibration set; null: all. `min_kv_scale`: the least scale of
    the KV cache; null: 0. `custom_mode`: "fp8" exports in vLLM's own form of FP8, which Quark 0.9
    can; null: Quark's form. `model_attn_implementation`: transformers' attention while Quark 0.9
    calibrates; null: eager. `batch_size`: samples that Quark 0.9 calibrates on together; null: 1.
    `calibrate_answers`: ours: samples go on with their true answers, since static scales of prompts
    alone don't fit what is generated.
    """

    version: str
    quant_scheme: Literal["w_fp8_a_fp8", "w_mxfp4_a_mxfp4"]
    kv_cache_dtype: Literal["fp8"]
    exclude_layers: tuple[str, ...]
    seq_len: Positive
    data_type: Literal["float16", "bfloat16", "float32", "auto"] | None = None
    quant_algo: Literal["autosmoothquant", "gptq"] | None = None
    group_size: Literal[32] | None = None
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
    """Options of AMD's quant_sdxl.py, by its names. Reprise plans this tool and doesn't run it.

    `revision`: of Brevitas. `calibration_steps`: of denoising, for each prompt.
    `calibration_prompts`: how many captions. `guidance_scale`: how much the caption counts
    meanwhile. `quantize_sdp`: the product of attention is quantized too.
    `activation_equalization_alpha`: how much of the activations' range moves into the weights.
    `skipped`: parts of the names of layers left as they are.
    """

    revision: str
    calibration_steps: Positive
    calibration_prompts: Positive
    guidance_scale: PositiveNumber
    quantize_sdp: bool
    activation_equalization_alpha: PositiveNumber
    skipped: tuple[str, ...]


class StreamingOptions(Strict):
    """MXFP4 weights made shard by shard, without calibration.

    `rounded`: stores the rounded values in the source's dtype, for engines without the format.
    `activations`: quantized by the engine as it runs, or not at all. `scale_calculation_mode`: how
    a group's scale follows from its largest magnitude; "floor" is the specification's, "even"
    rounds the magnitude first, so that nothing is clipped, as AMD's v5.1 weights do. `exclude`:
    glob patterns of modules that stay as they are ("lm_head", "*.gate"). `workers`: shards
    rewritten at once; each takes a thread and a few megabytes.
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

    `model`: the benchmark whose weights they are. `tool`: what makes them: "simulated" quantizes
    and dequantizes back to bf16; "streaming" is Reprise's own, for models larger than memory.
    `format`: of the weights; "none" keeps the source weights, and no job is planned. `options`: the
    tool's own.
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
    """Layers that are named, counted from 0.

    `first`: the first one that is dropped. `last`: the last one, which is dropped too.
    """

    by: Literal["layers"]
    first: NotNegative
    last: NotNegative

    @property
    def count(self) -> int:
        return self.last - self.first + 1


class LeastImportantBlock(Strict):
    """The neighbouring layers that do least on calibration prompts.

    `by`: what a layer's importance is (steps/prepare/prune/importance.py): the sum of the absolute
    outputs of its feed-forward network, as AMD chose, or how much the block turns the hidden state.
    `count`: how many layers are dropped. `samples`: how many of the first calibration prompts are
    run. `dtype`: what transformers computes in. `device`: "auto" spreads the layers over all GPUs.
    """

    by: Literal["ffn_output", "angular_distance"]
    count: Positive
    samples: Positive
    dtype: Literal["bfloat16", "float16", "float32"]
    device: Literal["cpu", "auto"]


class PruneConfig(Strict):
    """Depth pruning: a block of neighbouring decoder layers is dropped.

    `layers`: how many the model has; another number is refused. `block`: which ones go. `when`: the
    21 % model was quantized first, the 33 % model is pruned in bf16, fine-tuned and then quantized.
    `workers`: shards rewritten at once; each takes a thread and a few megabytes.
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
    """The first prompts of the rehearsal's training stream that no evaluation prompt is in.

    `training_samples`: how many are trained on. `validation_samples`: how many of those that follow
    the validation loss is of.
    """

    kind: Literal["notes"]
    training_samples: Positive
    validation_samples: Positive


class Haystack(Strict):
    """The text that needles are hidden in, as RULER's own script writes it.

    `path`: a PaulGrahamEssays.json on this machine; null: RULER's script downloads it. `sha256`:
    what the file has to have; null: any.
    """

    path: str | None
    sha256: Sha256 | None


class TrainingSetsConfig(Strict):
    """RULER's `niah_multivalue` sets: generated, or taken from a directory.

    `generator`: RULER's git repository, or a path to a clone. `commit`: of that repository.
    `lengths`: tokens of a sample, at most; there is a set for each of them by each of `needles`.
    `needles`: values that are hidden in a sample. `samples`: of each set. `values`: the kind of
    value that is hidden. `template`: a name of RULER's prompt templates. `seed`: of the generator.
    `haystack`: the text that needles are hidden in. `nltk_data`: a directory with
    tokenizers/punkt_tab; null: NLTK downloads it. `directory`: has the sets, a file each, named as
    `digests` names them; null: they are generated. `digests`: sha256 of each file of `directory`.
    `processes`: sets that are generated at once. `limit_s`: how long one may take. `offline`:
    nothing is fetched.
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

    `training_samples_per_set`: the first ones of each, which are trained on.
    `validation_samples_per_set`: the last ones of each, which the validation loss is of. `end`:
    follows the answers, which are joined by line ends.
    """

    kind: Literal["ruler"]
    training_samples_per_set: Positive
    validation_samples_per_set: Positive
    end: str


class LoraConfig(Strict):
    """Low-rank adapters on every linear layer but the head; on a mixture's attention only.

    `rank`: of the two factors, peft's r. `alpha`: what they add to a weight is multiplied by
    `alpha` / `rank`.
    """

    rank: Positive
    alpha: Positive


class FinetuneConfig(Strict):
    """Supervised training of LoRA adapters by transformers' Trainer and peft, merged afterwards.

    `seed`: of the adapters' first factors and of the samples' order. `data`: what is trained on.
    `lora`: the adapters. `learning_rate`: its highest, after the warm-up. `epochs`: how often all
    samples are seen. `lr_scheduler`: how the rate falls. `warmup_ratio`: share of all steps in
    which it rises. `max_grad_norm`: what gradients are clipped to. `cutoff_len`: in tokens; longer
    samples are cut, and one whose answer is cut off whole is left out.
    `per_device_train_batch_size`: samples of a process at once. `gradient_accumulation_steps`: such
    batches before the weights change. `gradient_checkpointing`: activations are computed again,
    which saves memory. `dtype`: of the weights while adapters are trained beside them. `processes`:
    one per accelerator; without a `deepspeed_zero_stage` each holds the whole model.
    `deepspeed_zero_stage`: what DeepSpeed shares out between processes: 2, gradients and optimizer;
    3, the weights too; null: no DeepSpeed. `save_steps`: steps between two checkpoints, from which
    a killed training continues. `checkpoint_step`: training ends there and its adapters are merged;
    None: at the end of the last epoch. `stall_limit_s`: without a step done for so long it counts
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
    """An image that Reprise plans and has no recipe for: what is known of it.

    `name`: what plans and messages call it. `tag`: its name without the architecture. `base`:
    the image that it is built on; without a digest it may change under its tag. `architecture`:
    what it is built for, as compilers name it (gfx942). `components`: sources that are added, each
    with its revision. `patches`: what is changed in them.
    """

    name: Name
    tag: str
    base: str
    architecture: Name
    components: dict[str, str]
    patches: tuple[str, ...]
