"""Engines that submissions used and that Reprise plans but doesn't start.

Their settings are typed like those of the engines that it does start, so that a misspelt argument
is found before anything is copied to a machine. An option with a default of None here is one that
the tool was not given: nothing is passed on for it.
"""

from typing import Annotated, Literal

from pydantic import Field

from steps.base.strict import Fraction, Name, NotNegative, Positive, PositiveNumber, Strict
from steps.config.engine import VllmArguments


class Sampling(Strict):
    """Temperature 0 or the one most likely token is greedy; a `top_k` of -1 counts every token."""

    temperature: Annotated[float, Field(ge=0)]
    top_p: Fraction
    top_k: Positive | Literal[-1]
    seed: int | None = None


class Sorting(Strict):
    """Order and split of an Offline query over the engines; `buckets` in percent per engine."""

    strategy: Literal["ignore", "buckets", "modulo_desc", "batchpacking"]
    buckets: tuple[PositiveNumber, ...]


class Dispatch(Strict):
    """How AMD's harness spreads samples over `device_count` independent engines of a node."""

    engine_version: Literal["sync", "async"]
    device_count: Positive
    schedule_algo: Literal["shortest_queue", "shortest_queue_with_tokens", "round_robin"]
    load_balance_token_weight: PositiveNumber
    load_balance_window_size: Positive
    enable_warmup: bool
    sorting: Sorting


class Power(Strict):
    """Clocks that are set before a run; a perf_determinism_mhz of 0 resets to the default."""

    perf_determinism_mhz: NotNegative
    soc_pstate: NotNegative


class RocmVllmEngine(Strict):
    """AMD's harness around its own vLLM, one engine process per GPU. `build`: a name of
    `conf/options/`. `unread`: variables of `environment` that this build doesn't read, each with
    the reason why it is kept."""

    kind: Literal["vllm-rocm"]
    build: Name
    unread: dict[str, str] = Field(default_factory=dict)
    arguments: VllmArguments
    sampling: Sampling
    dispatch: Dispatch
    power: Power
    environment: dict[str, str]


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
    RocmVllmEngine | LlmboostEngine | SharkEngine | UnpublishedEngine, Field(discriminator="kind")
]
