"""What is known of a step before it runs: the type that every file of steps/plan/specs/ fills in.

The specs stand in this layer and not beside the steps, because the plan reads them all and imports
nothing from the layers above it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from steps.plan.rates import Rates

Stage = Literal["artifacts", "runs", "verdicts", "submission", "provenance"]
Environment = Literal["driver", "engine", "prepare", "generator", "analysis", "scoring"]
Place = Literal["here", "share", "nodes"]

Config = Mapping[str, Any]
"""A step's configuration as plain JSON."""

SHORT_S = 10.0


@dataclass(frozen=True)
class Cost:
    """Machine-seconds and disk of a job; seconds None: nothing is known of it.

    `measured`: the seconds are those of an earlier run of this very job. `basis`: what they follow
    from, where that isn't the configuration alone. `rough`: they rest on an assumption, so no time
    limit may follow from them.
    """

    seconds: float | None
    gigabytes: float
    measured: bool = False
    basis: str = ""
    rough: bool = False


@dataclass(frozen=True)
class Facts:
    """What a job's cost depends on besides its configuration.

    `samples` of its dataset. `billions` of parameters of the weights that it starts from (a model's
    own), None if their number isn't known; `weight_bytes`: of each of them.
    """

    rates: Rates
    samples: int = 0
    billions: float | None = None
    weight_bytes: float = 2.0

    @property
    def weights_gb(self) -> float | None:
        return None if self.billions is None else self.billions * self.weight_bytes


UNKNOWN = Cost(None, 0.0)


def short(key: str, config: Config, facts: Facts) -> Cost:
    """Cost of a job that takes seconds."""
    return Cost(SHORT_S, 0.01)


def unlimited(config: Config) -> str | None:
    """Whatever the configuration, the step can be executed."""
    return None


def no_programs(config: Config) -> Mapping[str, str]:
    """Whatever the configuration, the step starts nothing that its environment lacks."""
    return {}


def all_used(config: Config) -> tuple[str, ...]:
    """Whatever the configuration, each key of it can change the result."""
    return ()


@dataclass(frozen=True)
class StepSpec:
    """One step.

    `module`: what `python -m` starts. `says`: what is printed before the job's name when it starts.
    `axes`: the axes its configuration may depend on; a configuration that differs between two cells
    that agree on these is rejected. `needs` maps the role of an input to the step that makes it
    ("weights" stands for the last of model, upcycle, quantize, prune and finetune that the cell has
    so far).
    `data`: globs of the checkout's files that it reads besides its inputs; the modules that can
    change its results follow from its imports (steps/plan/code.py).
    `place`: where it runs under a scheduler: here, on the machine that `./reproduce` runs on; on a
    share of a node; or on the nodes of its system. `priority`: of jobs that could start, the one
    with the highest does. `every_cell`: each cell has one, planned from `axes`, `needs` and its key
    of `conf/steps.yaml` alone; others are planned by code of their own in steps/plan/planner.py.
    `planned`: what a configuration is checked against that Reprise can plan but not execute.

    Functions of the configuration: `unused` names its keys, dotted, that can't change the result:
    what was made with other values of them holds; `limitation` says in a sentence why Reprise can't
    execute it; `brings` says what the user has to bring so that it can, and with which setting;
    `programs` maps programs that the machine has to have ("NAME", or "NAME in FOLDERS" where one of
    these has to have it) to the sentence that says so; `cost` also takes the job's key and what
    else it depends on.
    """

    module: str
    says: str
    config: type[BaseModel]
    stage: Stage
    environment: Environment
    place: Place
    axes: tuple[str, ...]
    needs: Mapping[str, str] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    priority: int = 0
    every_cell: bool = False
    planned: type[BaseModel] | None = None
    unused: Callable[[Config], tuple[str, ...]] = all_used
    limitation: Callable[[Config], str | None] = unlimited
    brings: Callable[[Config], str | None] = unlimited
    programs: Callable[[Config], Mapping[str, str]] = no_programs
    cost: Callable[[str, Config, Facts], Cost] = short
