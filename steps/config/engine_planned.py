"""Engines that submissions used and that Reprise plans but doesn't start.

Their settings are typed like those of the engines that it does start, so that a misspelt argument
is found before anything is copied to a machine. An option with a default of None here is one that
the tool was not given: nothing is passed on for it.
"""

from typing import Annotated, Literal

from pydantic import Field

from steps.base.strict import Fraction, NotNegative, Positive, PositiveNumber, Strict
from steps.config.engine import DiffusersEngine, NullEngine, RocmVllmEngine, VllmEngine


class LlmboostArguments(Strict):
    """Flags of MangoBoost's server.py (one per node) and client.py (one per cluster)."""

    tensor_parallel_size: Positive
    data_parallel_size: Positive
    max_model_len: Positive
    max_tokens: Positive
    gpu_batch_size: Positive
    batcher_threshold: PositiveNumber
    batched_queries: Positive
    parallel_requests: Positive
    scheduler: Literal["round_robin", "weighted_random"]
    scheduler_weights: tuple[Positive, ...]


class LlmboostVllmArguments(Strict):
    """vLLM arguments below LLMBoost, as far as they were published (MI355X)."""

    dtype: Literal["bfloat16"]
    quantization: Literal["quark"]
    kv_cache_dtype: Literal["fp8"]
    gpu_memory_utilization: Fraction
    block_size: Positive
    num_scheduler_steps: Positive
    max_num_batched_tokens: Positive
    max_num_seqs: Positive
    swap_space: NotNegative


class LlmboostEngine(Strict):
    """MangoBoost's LLMBoost: closed source, a server on every node and one client."""

    kind: Literal["llmboost"]
    arguments: LlmboostArguments
    vllm_arguments: LlmboostVllmArguments | None = None
    environment: dict[str, str]


class SharkArguments(Strict):
    """Flags of AMD's Stable Diffusion XL harness; `td_spec` and `model_json` are file names."""

    gpu_batch_size: Positive
    cores_per_devices: Positive
    fibers_per_device: Positive
    num_sample_loops: Positive
    vae_batch_size: Positive | None = None
    enable_batcher: bool
    td_spec: str
    model_json: str


class SharkEngine(Strict):
    """AMD's shark-ai and IREE, 64 logical devices on eight GPUs in CPX mode."""

    kind: Literal["shark"]
    arguments: SharkArguments
    compute_partition: Literal["SPX", "CPX"]
    memory_partition: Literal["NPS1", "NPS4"]
    environment: dict[str, str]


class UnpublishedEngine(Strict):
    """Software that a submission names and whose settings were not published."""

    kind: Literal["unpublished"]
    software: str


PlannedEngine = Annotated[
    LlmboostEngine
    | SharkEngine
    | UnpublishedEngine
    | VllmEngine
    | RocmVllmEngine
    | NullEngine
    | DiffusersEngine,
    Field(discriminator="kind"),
]
