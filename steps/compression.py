"""Typed configuration of what is done to weights: quantization, pruning, fine-tuning.

An option with a default of None is one that the tool was not given: it keeps the tool's own.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from steps.strict import Name, NotNegative, Positive, PositiveNumber, Strict


class NoOptions(Strict):
    """The simulated formats have none."""


class QuarkOptions(Strict):
    """Options of AMD Quark's quantize_quark.py, by its names without dashes.

    `exclude_layers` are patterns of layers that keep their precision; `num_calib_data` counts
    samples of the calibration set, `seq_len` is in tokens.
    """

    version: str
    quant_scheme: Literal["w_fp8_a_fp8", "w_mxfp4_a_mxfp4"]
    kv_cache_dtype: Literal["fp8"]
    exclude_layers: tuple[str, ...]
    seq_len: Positive
    data_type: Literal["float16", "bfloat16", "auto"] | None = None
    quant_algo: Literal["autosmoothquant", "gptq"] | None = None
    group_size: Positive | None = None
    num_calib_data: Positive | None = None
    min_kv_scale: PositiveNumber | None = None
    custom_mode: Literal["fp8"] | None = None
    model_attn_implementation: Literal["sdpa"] | None = None
    batch_size: Positive | None = None


class BrevitasOptions(Strict):
    """Options of quant_sdxl.py; `skipped` are parts of the names of layers left as they are."""

    revision: str
    calibration_steps: Positive
    calibration_prompts: Positive
    guidance_scale: PositiveNumber
    quantize_sdp: bool
    activation_equalization_alpha: PositiveNumber
    skipped: tuple[str, ...]


class QuantizeConfig(Strict):
    """Weights in another precision.

    Format "none" keeps the source weights, and no job is planned. Tool "simulated" quantizes and
    dequantizes back to bf16.
    """

    model: Name
    tool: Literal["simulated", "quark", "brevitas"]
    format: Literal["none", "fp8", "mxfp4", "int2", "int8-fp8"]
    options: QuarkOptions | BrevitasOptions | NoOptions

    @model_validator(mode="after")
    def options_are_of_the_tool(self) -> Self:
        fitting = {"simulated": NoOptions, "quark": QuarkOptions, "brevitas": BrevitasOptions}
        if self.format != "none" and not isinstance(self.options, fitting[self.tool]):
            raise ValueError(f"format {self.format!r} has no options for {self.tool}")
        return self


class PruneConfig(Strict):
    """Depth pruning: layers `first_layer` to `last_layer` of `layers` are dropped, inclusive.

    Layers count from 0. `when`: the 21 % model was quantized first, the 33 % model is pruned in
    bf16, fine-tuned and then quantized.
    """

    first_layer: NotNegative
    last_layer: NotNegative
    layers: Positive
    when: Literal["after_quantize", "before_quantize"]

    @model_validator(mode="after")
    def range_lies_within(self) -> Self:
        if not self.first_layer <= self.last_layer < self.layers:
            raise ValueError(
                f"layers {self.first_layer} to {self.last_layer} are no range of {self.layers}"
            )
        return self

    @property
    def dropped(self) -> float:
        """Share of the layers that go."""
        return (self.last_layer - self.first_layer + 1) / self.layers


class FinetuneData(Strict):
    """RULER's generated needle-in-a-haystack samples: one set per length and number of needles."""

    task: Literal["niah_multivalue"]
    lengths: tuple[Positive, ...]
    needles: tuple[Positive, ...]
    training_samples_per_set: Positive
    validation_samples_per_set: Positive


class FinetuneConfig(Strict):
    """Supervised LoRA fine-tuning with LLaMA-Factory; `checkpoint_step` is merged and used."""

    tool: Literal["llama-factory"]
    data: FinetuneData
    lora_rank: Positive
    lora_alpha: Positive
    lora_target: Literal["all"]
    learning_rate: PositiveNumber
    epochs: Positive
    lr_scheduler: Literal["cosine"]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    max_grad_norm: PositiveNumber
    cutoff_len: Positive
    per_device_train_batch_size: Positive
    gradient_accumulation_steps: Positive
    deepspeed_zero_stage: Literal[3]
    checkpoint_step: Positive


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
