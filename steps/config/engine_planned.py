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
    """Flags of MangoBoost's server.py (one per node) and client.py (one per cluster), by their
    names. The code behind them is closed: what isn't said here isn't published.

    `tensor_parallel_size`: accelerators of each engine. `data_parallel_size`: engines of a node.
    `max_model_len`: tokens of a prompt and its answer. `max_tokens`: the most of an answer.
    `gpu_batch_size`: a flag of the server. `batcher_threshold`: a flag of the server, without a
    unit. `batched_queries`: a flag of the client. `parallel_requests`: a flag of the client.
    `scheduler`: how the client chooses a node for a request. `scheduler_weights`: one for each
    node, with the scheduler "weighted_random"; otherwise empty.
    """

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
    """vLLM arguments below LLMBoost, as far as they were published (MI355X); the names are vLLM's.

    `dtype`: of what isn't quantized. `quantization`: reads weights in Quark's form.
    `kv_cache_dtype`: of the KV cache. `gpu_memory_utilization`: share of the memory that vLLM
    takes. `block_size`: tokens of a block of the KV cache. `num_scheduler_steps`: steps of V0
    between two decisions of its scheduler. `max_num_batched_tokens`: tokens of one step.
    `max_num_seqs`: requests at a time. `swap_space`: GiB of the host's memory for the KV cache of
    each accelerator.
    """

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
    """MangoBoost's LLMBoost: closed source, a server on every node and one client.

    `arguments`: flags of server and client. `vllm_arguments`: of the vLLM below; null: not
    published. `environment`: variables of its containers.
    """

    kind: Literal["llmboost"]
    arguments: LlmboostArguments
    vllm_arguments: LlmboostVllmArguments | None = None
    environment: dict[str, str]


class SharkArguments(Strict):
    """Flags of AMD's Stable Diffusion XL harness, by its names.

    `gpu_batch_size`: pictures that a process makes together. `cores_per_devices`: processes of the
    harness on each logical device. `fibers_per_device`: fibers of shark-ai's shortfin in each
    process. `num_sample_loops`: a flag of the harness: 2 in AMD's Offline, 1 in its Server.
    `vae_batch_size`: pictures that are decoded together; null: the flag isn't passed on.
    `enable_batcher`: samples of Server wait for a whole batch. `td_spec`: file name of IREE's
    transform specification. `model_json`: file name of the model's configuration.
    """

    gpu_batch_size: Positive
    cores_per_devices: Positive
    fibers_per_device: Positive
    num_sample_loops: Positive
    vae_batch_size: Positive | None = None
    enable_batcher: bool
    td_spec: str
    model_json: str


class SharkEngine(Strict):
    """AMD's shark-ai and IREE, 64 logical devices on eight GPUs in CPX mode.

    `arguments`: flags of AMD's harness. `compute_partition`: what the accelerators have to be in.
    `memory_partition`: what their memory has to be in. `environment`: variables that AMD's scripts
    set.
    """

    kind: Literal["shark"]
    arguments: SharkArguments
    compute_partition: Literal["SPX", "CPX"]
    memory_partition: Literal["NPS1", "NPS4"]
    environment: dict[str, str]


class UnpublishedEngine(Strict):
    """Software that a submission names and whose settings were not published.

    `software`: as the submission's system description names it.
    """

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
