"""Engines that steps/run/sut starts: what each is started with, and how many serve a run."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from typing_extensions import Self

from steps.base import threads
from steps.base.strict import Fraction, Name, NotNegative, Positive, PositiveNumber, Strict
from steps.config.accelerators import Accelerator, Modes

RANGE = ("from", "to", "by")
"""Keys of what stands in a list for the whole numbers of a range, both ends included: capture sizes
of `{from: 4096, to: 8, by: 8}` are 4096, 4088 ... 8."""

LONGEST = 100_000
"""The most numbers of a range."""


class VllmArguments(BaseModel):
    """Arguments of vLLM's EngineArgs, by its names.

    These are the ones that Reprise reads or forbids. Any other that the engine's build takes is
    passed on as it is (steps/config/options.py).

    `max_model_len`: tokens of a prompt and its answer. `max_num_seqs`: requests that an engine
    works on at a time; it is given a quarter more. `tensor_parallel_size`: accelerators of each
    engine. `pipeline_parallel_size`, `data_parallel_size`: 1, for an engine is one copy of the
    weights on `tensor_parallel_size` accelerators, and placement says how many engines there are.
    `enable_prefix_caching`: false, by MLPerf's rules. `load_format`: never "dummy", whose weights
    are random.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, JsonValue]

    max_model_len: Positive
    max_num_seqs: Positive
    tensor_parallel_size: Positive
    pipeline_parallel_size: Literal[1] | None = None
    data_parallel_size: Literal[1] | None = None
    enable_prefix_caching: Literal[False]
    load_format: str | None = None

    @model_validator(mode="after")
    def harness_sets_its_own(self) -> Self:
        for name, why in OURS.items():
            if name in (self.__pydantic_extra__ or {}):
                raise ValueError(f"{name} is not for the configuration: {why}; take it out")
        if self.load_format == "dummy":
            raise ValueError("load_format dummy makes random weights; take it out")
        return self

    @model_validator(mode="after")
    def ranges_count_down_or_up(self) -> Self:
        self.passed_on()
        return self

    def passed_on(self) -> dict[str, Any]:
        """What vLLM is given: every range as its numbers. Raises ValueError for a wrong one."""
        return {
            name: _counted(name, value)
            for name, value in self.model_dump(mode="json", exclude_none=True).items()
        }


OURS = {
    "model": "the weights are those of the cell",
    "tokenizer": "engines are given token ids",
    "skip_tokenizer_init": "engines are given token ids",
    "fail_on_environ_validation": "it is always on where the engine has it",
}


def _counted(name: str, value: JsonValue) -> Any:
    if isinstance(value, dict):
        return {key: _counted(f"{name}.{key}", inner) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    found: list[Any] = []
    for item in value:
        counts = isinstance(item, dict) and item.keys() == set(RANGE)
        found += _numbers(name, item) if counts else [_counted(name, item)]
    return found


def _numbers(name: str, bounds: Any) -> list[int]:
    first, last, step = (bounds[key] for key in RANGE)
    if any(type(number) is not int for number in (first, last, step)) or step < 1:
        raise ValueError(f"{name}: from, to and by of a range are whole numbers, by at least 1")
    if abs(last - first) // step >= LONGEST:
        raise ValueError(f"{name}: a range has at most {LONGEST} numbers")
    found = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    return list(found)


class Sampling(Strict):
    """How the next token is chosen: by vLLM's SamplingParams, with its names. What is null isn't
    passed on, and vLLM's default applies.

    `temperature`: 0 takes the most likely token. `top_p`: the share of probability that is drawn
    from. `top_k`: how many of the most likely tokens are drawn from; 1 is greedy too, and -1, every
    token, is gpt-oss-120b's. `seed`: of the draws; vLLM draws slower with one.
    """

    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Fraction | None = None
    top_k: Positive | Literal[-1] | None = None
    seed: int | None = None


class Sorting(Strict):
    """Order and split of an Offline query over the engines in AMD's harness; recorded only.

    `strategy`: the harness's name of it; "ignore" keeps LoadGen's order. `buckets`: percent of the
    samples for each engine, with the strategy "buckets"; otherwise empty.
    """

    strategy: Literal["ignore", "buckets", "modulo_desc", "batchpacking"]
    buckets: tuple[PositiveNumber, ...]


class Dispatch(Strict):
    """How AMD's harness spread samples over the independent engines of a node. Recorded only.

    `engine_version`: "sync" steps vLLM V0, "async" drives V1. `device_count`: accelerators of the
    node, which the harness divides by those of an engine. `schedule_algo`: which engine gets a
    sample of Server; "shortest_queue_with_tokens" adds prompt lengths to the queue's length.
    `load_balance_token_weight`: weight of these lengths. `load_balance_window_size`: of how many of
    an engine's latest prompts they are the sum. `enable_warmup`: samples before LoadGen starts;
    ours are `warmup_samples`. `sorting`: order and split of an Offline query.
    """

    engine_version: Literal["sync", "async"]
    device_count: Positive
    schedule_algo: Literal["shortest_queue", "shortest_queue_with_tokens", "round_robin"]
    load_balance_token_weight: PositiveNumber
    load_balance_window_size: Positive
    enable_warmup: bool
    sorting: Sorting


class Power(Strict):
    """Clocks that a run sets on every accelerator and resets after (steps/run/clocks.py).

    `perf_determinism_mhz`: highest clock in MHz, by `rocm-smi --setperfdeterminism`; 0 resets it to
    the default. `soc_pstate`: the SoC's pstate, as `amd-smi` numbers it; virtual machines have
    none.
    """

    perf_determinism_mhz: NotNegative
    soc_pstate: NotNegative


class NullArguments(Strict):
    """Timing of an engine that computes nothing.

    A sample has its first token `ttft_ms` and `prompt_token_ms` per token of its prompt after it
    got its place, and one more every `tpot_ms`. Lengths of answers are log-normal and cut to what
    the benchmark allows; a prompt has the same one on every engine.

    `max_model_len`: tokens of a prompt and its answer. `max_num_seqs`: samples that an engine works
    on at a time. `ttft_ms`: ms to the first token. `prompt_token_ms`: ms more for each token of the
    prompt. `tpot_ms`: ms between tokens. `speeds`: what all these times are divided by; engine n
    has `speeds[n % len(speeds)]`. `jitter`: the speed is multiplied by a factor drawn from 1 ±
    this. `jitter_period_s`: how often it is drawn again. `output_tokens_mean`: mean length of an
    answer in tokens. `output_tokens_sigma`: standard deviation of the length's logarithm; 0: all
    alike. `seed`: of the lengths and of the jitter.
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


Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:@-]*$")]
"""A name that ssh knows, with a user's before it or not; never one of ssh's options."""

MOST_ENGINES = 1024
"""On a node: each is a process. The most that any system here has is 64, in CPX."""

SSH = "ssh"
"""Address of a cluster that a run starts over SSH."""


class NodeKind(Strict):
    """Nodes with one kind of accelerators.

    `hardware`: a name of `conf/hardware/`. `nodes`: how many there are. `accelerator`: what each
    has to have, which is checked before engines start. `modes`: how accelerators are partitioned;
    None: they can't be. `engines`: on each, where these nodes use another number of accelerators
    than the system's hardware has; None: placement.engines_per_node.
    """

    hardware: Name
    nodes: Positive
    accelerator: Accelerator
    modes: Modes | None = None
    engines: Positive | None = None

    @property
    def devices(self) -> int:
        """How many devices an engine can be given on one of these nodes."""
        return self.accelerator.count_per_node * (self.modes.devices if self.modes else 1)


class Seat(NamedTuple):
    """An engine's node, by number, and its place among those of the node."""

    node: int
    place: int


class Placement(Strict):
    """How many engines a node has, where they run, and what a dead one means.

    `nodes`: how many. `engines_per_node`: engines on each. `in_process`: the node's only engine
    runs in LoadGen's own process, which saves a hop; else each engine is a process. `pinned`:
    engine processes share the CPUs out evenly, NUMA node by NUMA node; the engine in LoadGen's
    process has the idlest, one per thread, and LoadGen's threads the others. `device_variable`:
    what names an engine's accelerators to it; `tensor_parallel_size` of them each, in order.
    `prompt_token_weight`: the work of a prompt's token over that of an answer's, for routing.
    `on_failure`: "redispatch" gives a dead engine's samples to the others and continues without one
    that can't start. `silence_limit_s`: an engine process without a sign of life for so long is
    dead. `degraded_below`: results name engines that are slower than this share of the median of
    those on the same device. `nodes_loading`: on how many nodes engines load weights at once, where
    all read them from one disk; None: on all.

    `cluster`: "none", this machine alone; "slurm", the nodes of the Slurm job that the run is;
    "local", so many nodes of Ray on this machine; "ssh", `hosts`, on which the run starts them;
    else the address of a running Ray cluster, HOST:PORT, or "auto" for the one that this machine
    belongs to. `hosts`: names that ssh knows, one for each node; for the cluster "ssh" alone.
    `checkout`: path of the checkout on these hosts; None: the same as here. `kinds`: what nodes
    with accelerators have to have, one as well as several; engines are numbered in this order.
    """

    cluster: Annotated[str, Field(pattern=r"^(none|slurm|local|ssh|auto|[A-Za-z0-9._-]+:[0-9]+)$")]
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
    kinds: tuple[NodeKind, ...] = ()
    hosts: tuple[Host, ...] = ()
    checkout: str | None = None
    nodes_loading: Positive | None = None

    @model_validator(mode="after")
    def one_process_has_one_engine(self) -> Self:
        if self.in_process and self.engines_per_node > 1:
            raise ValueError(
                f"{self.engines_per_node} engines can't share LoadGen's process; "
                "set placement.in_process to false"
            )
        if self.in_process and self.device_variable != "none":
            raise ValueError(
                "only engine processes are given accelerators; set placement.in_process to false"
            )
        return self

    @model_validator(mode="after")
    def a_node_can_start_them(self) -> Self:
        if self.engines_per_node > MOST_ENGINES:
            raise ValueError(
                f"placement.engines_per_node is {self.engines_per_node:,}, and a node starts "
                f"{MOST_ENGINES:,} processes of engines at most; lower it"
            )
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

    @model_validator(mode="after")
    def hosts_are_the_nodes(self) -> Self:
        if self.cluster == SSH and not self.hosts:
            raise ValueError("placement.cluster=ssh needs cluster.hosts, one for every node")
        if self.hosts and len(set(self.hosts)) != self.nodes:
            raise ValueError(
                f"cluster.hosts has {len(set(self.hosts))} hosts, the system {self.nodes} nodes; "
                "name each one once, or choose another cluster"
            )
        return self

    def kind(self, node: int) -> NodeKind | None:
        """The kind of a node by its number; None if any node will do."""
        nodes = [kind for kind in self.kinds for _ in range(kind.nodes)]
        return nodes[node] if nodes else None

    def engines_on(self, kind: NodeKind | None) -> int:
        """How many a node of this kind has."""
        return (kind.engines if kind else None) or self.engines_per_node

    @property
    def seats(self) -> "tuple[Seat, ...]":
        """Where each engine runs, by its number: node by node, and on each from 0."""
        found = []
        for node in range(self.nodes):
            count = self.engines_on(self.kind(node))
            found += [Seat(node, place) for place in range(count)]
        return tuple(found)

    def require_devices(self, kind: NodeKind, each: int = 1, words: str = "") -> None:
        """Raises ValueError unless a node of this kind has so many devices for each of its engines,
        which `words` say more of."""
        if self.device_variable == "none":
            raise ValueError(
                f"engines share nodes of {kind.hardware}; set placement.device_variable, so "
                "that each has its own accelerators"
            )
        engines = self.engines_on(kind)
        if engines * each > kind.devices:
            raise ValueError(
                f"{engines} engines{words} need {engines * each} accelerators, a node of "
                f"{kind.hardware} has {kind.devices}"
            )


class EngineSettings(Strict):
    """What every engine has.

    `placement`: how many engines there are, and where. `emulation`: formats that the processor
    lacks are computed with their numerics (steps/run/engines/emulation.py), on a CPU only.
    `environment`: variables that are set before the engine is imported; `environment_on`: those of
    engines on another hardware of a mixed cluster. `warmup_samples`: calibration prompts that an
    engine answers before LoadGen starts. `start_limit_s`: how long an engine may take to be ready.
    `stall_limit_s`: a run in which no sample makes progress for so long ends with an error naming
    one. `offline_order`: how Offline's samples are handed out;
    "longest_first" sorts by the prompt's length within each copy of LoadGen's sample set and never
    beyond, as the rules allow, so that no long prompt is left for the end.
    """

    placement: Placement
    offline_order: Literal["as_issued", "longest_first"]
    environment: dict[str, str]
    environment_on: dict[Name, dict[str, str]] = Field(default_factory=dict)
    warmup_samples: Positive
    start_limit_s: PositiveNumber
    stall_limit_s: PositiveNumber
    emulation: bool = False

    @model_validator(mode="after")
    def variables_can_be_set(self) -> Self:
        every = (self.environment, *self.environment_on.values())
        for name, value in (pair for one in every for pair in one.items()):
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(
                    f"environment.{name} can't be set: a variable has a name, without =, and "
                    "neither name nor value has a NUL"
                )
        return self

    @model_validator(mode="after")
    def threads_are_said_once(self) -> Self:
        said = {*self.environment, *(name for own in self.environment_on.values() for name in own)}
        for name in (*threads.COUNTS, *threads.OVERRULING, threads.BINDING):
            if name in said:
                raise ValueError(
                    f"environment.{name} is about threads of arithmetic, which one number says for "
                    "all libraries; set engine.threads and take it out"
                )
        return self


class _Vllm(EngineSettings):
    """vLLM of any generation.

    `build`: a name of `conf/options/`, whose arguments and variables count until the environment or
    image is there. `unread`: variables of `environment` that this build doesn't read, each with the
    reason why it is kept. `threads`: of arithmetic on the CPU, of each engine. `arguments`: vLLM's
    own. `arguments_on`: in the place of `arguments`, for engines on another hardware of a mixed
    cluster. `sampling`: how tokens are chosen.
    """

    build: Name
    unread: dict[str, str] = Field(default_factory=dict)
    threads: Positive
    arguments: VllmArguments
    arguments_on: dict[Name, VllmArguments] = Field(default_factory=dict)
    sampling: Sampling = Field(default_factory=Sampling)

    @model_validator(mode="after")
    def nodes_have_accelerators_for_their_engines(self) -> Self:
        for kind in self.placement.kinds:
            arguments = self.arguments_on.get(kind.hardware, self.arguments)
            if arguments.max_model_len != self.arguments.max_model_len:
                raise ValueError(
                    f"max_model_len on {kind.hardware} is {arguments.max_model_len}, elsewhere "
                    f"{self.arguments.max_model_len}: every engine has to take every prompt"
                )
            each = arguments.tensor_parallel_size
            self.placement.require_devices(kind, each, f" of tensor_parallel_size {each}")
        return self


class VllmEngine(_Vllm):
    """vLLM as its project releases it, for a CPU, ROCm or CUDA."""

    kind: Literal["vllm"]


class RocmVllmEngine(_Vllm):
    """AMD's own vLLM of v5.1.

    `dispatch`: settings of AMD's harness, recorded only, as variables that begin with HARNESS_ are:
    our fleet starts the engines. `power`: clocks, which a run sets where the site allows it.
    `power_on`: clocks of another hardware of a mixed cluster.
    """

    kind: Literal["vllm-rocm"]
    dispatch: Dispatch
    power: Power
    power_on: dict[Name, Power] = Field(default_factory=dict)


class NullEngine(EngineSettings):
    """Token counts and timing only: what it serves measures the harness and nothing else.

    `threads`: 0, for it computes nothing. `arguments`: its timing. `arguments_on`: in their place,
    for engines on another hardware of a mixed cluster.
    """

    kind: Literal["null"]
    threads: Literal[0] = 0
    arguments: NullArguments
    arguments_on: dict[Name, NullArguments] = Field(default_factory=dict)


class DiffusersArguments(Strict):
    """Settings of Stable Diffusion XL in PyTorch.

    `batch_size`: pictures that are always made together; where fewer wait, the last caption fills
    the rest, so that a picture doesn't depend on how many others were asked for, and nothing is
    compiled again. `batch_timeout_s`: how long a sample of Server waits for others. `dtype`: what
    the UNet computes in. `device`: PyTorch's name of it; ROCm's calls its own `cuda` too.
    `compile`: by torch.compile. `channels_last`: the memory format of UNet and decoder.
    `decode_singly`: the decoder makes one picture after the other, which takes less memory.
    """

    batch_size: Positive
    batch_timeout_s: Annotated[float, Field(ge=0, le=60)]
    dtype: Literal["float32", "bfloat16", "float16"]
    device: Literal["cpu", "cuda"]
    compile: bool
    channels_last: bool
    decode_singly: bool


class DiffusersEngine(EngineSettings):
    """Hugging Face's diffusers: one engine on each accelerator (ROCm's PyTorch calls its own `cuda`
    too), or on a CPU.

    `threads`: of arithmetic on the CPU, of each engine. `arguments`: the pipeline's settings.
    `arguments_on`: in their place, for engines on another hardware of a mixed cluster.
    """

    kind: Literal["diffusers"]
    threads: Positive
    arguments: DiffusersArguments
    arguments_on: dict[Name, DiffusersArguments] = Field(default_factory=dict)

    @model_validator(mode="after")
    def each_engine_has_an_accelerator(self) -> Self:
        for kind in self.placement.kinds:
            self.placement.require_devices(kind)
        return self


Engine = Annotated[
    VllmEngine | RocmVllmEngine | NullEngine | DiffusersEngine, Field(discriminator="kind")
]
