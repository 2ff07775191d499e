"""Engines that steps/sut starts: what each is started with, and how many serve a run."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from steps.strict import Fraction, NotNegative, Positive, PositiveNumber, Strict


class VllmArguments(Strict):
    """Arguments of vLLM's EngineArgs, by its names."""

    dtype: Literal["bfloat16", "float16", "float32", "auto"]
    max_model_len: Positive
    max_num_seqs: Positive
    max_num_batched_tokens: Positive
    tensor_parallel_size: Positive
    enforce_eager: bool
    enable_prefix_caching: Literal[False]
    enable_chunked_prefill: bool
    seed: int
    kv_cache_dtype: Literal["fp8"] | None = None


class NullArguments(Strict):
    """Timing of an engine that computes nothing.

    It works on `max_num_seqs` samples at a time; each has its first token `ttft_ms` and
    `prompt_token_ms` per token of its prompt after it got its place, and one more every `tpot_ms`.
    All of them are divided by the engine's own speed: engine n has
    `speeds[n % len(speeds)]`, times a factor drawn from 1 ± `jitter` every `jitter_period_s`.
    Lengths of answers are log-normal with this mean and this standard deviation of the logarithm
    (0: all alike), cut to what the benchmark allows; a prompt has the same one on every engine.
    """

    max_model_len: Positive
    max_num_seqs: Positive
    ttft_ms: Annotated[float, Field(ge=0)]
    prompt_token_ms: Annotated[float, Field(ge=0)]
    tpot_ms: Annotated[float, Field(ge=0)]
    speeds: Annotated[tuple[PositiveNumber, ...], Field(min_length=1)]
    jitter: Annotated[float, Field(ge=0, lt=1)]
    jitter_period_s: PositiveNumber
    output_tokens_mean: PositiveNumber
    output_tokens_sigma: Annotated[float, Field(ge=0, le=3)]
    seed: NotNegative


class Placement(Strict):
    """How many engines a node has, where they run, and what a dead one means.

    `in_process`: the node's only engine runs in LoadGen's own process, which saves a hop; else each
    engine is a process. `pinned`: engine processes share the CPUs out evenly, NUMA node by NUMA
    node. `device_variable`: what names an engine's accelerators to it; `tensor_parallel_size` of
    them each, in order. `prompt_token_weight`: the work of a prompt's token over that of an
    answer's, for routing. `on_failure` "redispatch" gives a dead engine's samples to the others and
    does without one that can't start. `silence_limit_s`: an engine process without a sign of life
    for so long is dead. `degraded_below`: results name engines that are slower than this share of
    the median of those on the same device.

    `cluster`: "none", this machine alone; "slurm", the nodes of the Slurm job that the run is;
    "local", so many nodes of Ray on this machine; else the address of a running Ray cluster,
    HOST:PORT, or "auto" for the one that this machine belongs to.
    """

    cluster: Annotated[str, Field(pattern=r"^(none|slurm|local|auto|[A-Za-z0-9._-]+:[0-9]+)$")]
    nodes: Positive
    engines_per_node: Positive
    in_process: bool
    pinned: bool
    device_variable: Literal[
        "none", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"
    ]
    prompt_token_weight: Annotated[float, Field(ge=0, le=1)]
    on_failure: Literal["fail", "redispatch"]
    silence_limit_s: PositiveNumber
    degraded_below: Fraction

    @model_validator(mode="after")
    def one_process_has_one_engine(self) -> Self:
        if self.in_process and self.engines_per_node > 1:
            raise ValueError(
                f"{self.engines_per_node} engines can't share LoadGen's process; "
                "set placement.in_process to false"
            )
        if self.in_process and (self.pinned or self.device_variable != "none"):
            raise ValueError("only engine processes are pinned; set placement.in_process to false")
        return self

    @model_validator(mode="after")
    def several_nodes_are_a_cluster(self) -> Self:
        if self.cluster == "none" and self.nodes > 1:
            raise ValueError(
                f"{self.nodes} nodes need a cluster; set placement.cluster to slurm, or to auto, "
                "local or the HOST:PORT of a Ray cluster"
            )
        if self.cluster != "none" and self.in_process:
            raise ValueError("a cluster's engines are processes; set placement.in_process to false")
        return self


class EngineSettings(Strict):
    """What every engine has.

    `emulation`: formats that the processor lacks are computed with their numerics
    (steps/sut/emulation.py), on a CPU only.
    `environment` is set before the engine is imported. `stall_limit_s`: a run in which no sample
    makes progress for so long ends with an error naming one. `offline_order`: how Offline's samples
    are handed out; "longest_first" sorts by the prompt's length within each copy of LoadGen's
    sample set and never beyond, as the rules allow, so that no long prompt is left for the end.
    """

    placement: Placement
    offline_order: Literal["as_issued", "longest_first"]
    environment: dict[str, str]
    warmup_samples: Positive
    start_limit_s: PositiveNumber
    stall_limit_s: PositiveNumber
    emulation: bool = False


class VllmEngine(EngineSettings):
    kind: Literal["vllm"]
    arguments: VllmArguments


class NullEngine(EngineSettings):
    """Token counts and timing only: what it serves measures the harness and nothing else."""

    kind: Literal["null"]
    arguments: NullArguments


Engine = Annotated[VllmEngine | NullEngine, Field(discriminator="kind")]
