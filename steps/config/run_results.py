"""The results of the steps that start engines."""

from typing import Any, Literal

from pydantic import Field

from steps.base.strict import NotNegative, Positive, Scenario, Strict
from steps.config.resolved import Resolved
from steps.config.results import Result


class EngineIdentity(Result):
    """The engines of a run: the same for all of them.

    `generation`: of vLLM, "V0" or "V1"; results of before generations were named lack it. `device`:
    its kind. `kernels`: "native" or "emulated". `torch`, `dtype`: of diffusers. `threads`: of
    arithmetic, of each engine. `emulated`: a precision that the device doesn't compute in. `image`:
    the one it ran in; None: it ran in an environment.
    """

    name: str
    version: str
    device: str
    generation: str = ""
    kernels: str = ""
    torch: str = ""
    dtype: str = ""
    threads: NotNegative | None = None
    emulated: bool = False
    image: str | None = None

    @property
    def words(self) -> str:
        """Name, version, generation, device and image: what differs here is other software."""
        kind = ", ".join(filter(None, (self.generation, self.device)))
        image = f" in {self.image}" if self.image else ""
        return f"{self.name} {self.version} ({kind}){image}"


class EngineReport(Result):
    """One engine of several: what it ran on, and what it did.

    `device`: the model of it. `accelerators`: their numbers on its node, as "0,1". `bus`: their
    addresses; `cpus` and `numa_node`: what it is bound to because of them. `sample_tokens_per_s`:
    of one sample, over the run; of the warm-up too.
    """

    name: str
    device: str
    accelerators: str
    bus: tuple[str, ...] = ()
    cpus: str = ""
    numa_node: int | None = None
    threads: NotNegative
    start_s: float
    samples: NotNegative
    output_tokens: NotNegative
    sample_tokens_per_s: float
    warmup_sample_tokens_per_s: float


class Report(Result):
    """`engines` that have processes of their own. `failures` (deaths), `degraded` and `exposed`
    (what a cluster's network lets others do): a sentence each that doesn't identify the site.
    """

    engines: tuple[EngineReport, ...] = ()
    failures: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()

    def given(self) -> dict[str, Any]:
        """What was said of it, and no default."""
        return {name: getattr(self, name) for name in self.model_fields_set}


Alike = str | int | float | None | tuple[str | int | float | None, ...]
"""What all accelerators of a run have, or what each has where they differ."""


class AcceleratorSettings(Result):
    """What a run's accelerators are set to; None: no tool says it."""

    performance_level: Alike = None
    max_clock_mhz: Alike = None
    soc_pstate: Alike = None
    power_cap_w: Alike = None
    compute_partition: Alike = None
    memory_partition: Alike = None


class RunAccelerators(Result):
    """`listed`: how many of which model, in words. `bus`: the PCI address of each. `before` and
    `after` the run."""

    listed: str
    architecture: Alike = None
    driver: Alike = None
    memory_mib: Alike = None
    bus: tuple[str | None, ...] = ()
    before: AcceleratorSettings = Field(default_factory=AcceleratorSettings)
    after: AcceleratorSettings = Field(default_factory=AcceleratorSettings)


class NodesAccelerators(Result):
    """Those of each node, in the nodes' order; None of one that gave no answer."""

    nodes: tuple[RunAccelerators | None, ...]


class Kept(Strict):
    """What a journal doesn't say of its run: how many CPUs it could use, and how long it took."""

    cores: Positive
    whole_s: float


class RunResult(Report):
    """A LoadGen run. Durations are in s; `loadgen_process_cpu_s`: of all threads of the process
    that LoadGen ran in.

    `cpus`: which of them LoadGen, the harness and engines had, as lists like "0-3,8".
    `accelerators`: None for a CPU's. `resolved`: what the first engine made of its settings; its
    whole configuration is in a file beside. `dropped_variables`: how many of the shell's the run
    didn't see. `tries`: this one and those before it with the same settings. `journal`: None if
    none was kept.
    """

    mode: Literal["PerformanceOnly", "AccuracyOnly"]
    scenario: Scenario
    engine: EngineIdentity
    cpus: dict[str, str] = Field(default_factory=dict)
    accelerators: RunAccelerators | NodesAccelerators | None = None
    loadgen_version: str
    dropped_variables: NotNegative = 0
    resolved: Resolved | None = None
    tries: Positive = 1
    samples: NotNegative
    output_tokens: NotNegative
    duration_s: float
    loadgen_process_cpu_s: float = 0.0
    engine_start_s: float = 0.0
    journal: Kept | None = None

    def dumped(self) -> dict[str, Any]:
        """What its engine said is whole, but for its configuration."""
        said = self.resolved and self.resolved.model_dump(mode="json", exclude={"configuration"})
        return super().dumped() | ({} if said is None else {"resolved": said})


class QuickRunResult(Result):
    """A run without LoadGen."""

    samples: Positive
    output_tokens: NotNegative
    engine: EngineIdentity


Ended = Literal["complete", "overload", "futile", "cut"]
"""How a search's run ended."""


class ProbeResult(Result):
    """A performance run that a search may have ended early: `ended` says by what. `measured_s`:
    until then; one that became a result has `duration_s` alone."""

    ended: Ended = "complete"
    measured_s: float | None = None
    duration_s: float = 0.0

    @property
    def lasted_s(self) -> float:
        return self.duration_s if self.measured_s is None else self.measured_s
