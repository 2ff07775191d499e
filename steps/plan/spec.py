"""What is known of a step before it runs: the type that every file of steps/plan/specs/ fills in.

The specs stand in this layer and not beside the steps, because the plan reads them all and imports
nothing from the layers above it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

Stage = Literal["artifacts", "runs", "verdicts", "submission", "provenance"]
Environment = Literal["driver", "engine", "prepare", "analysis", "scoring"]
Place = Literal["here", "share", "nodes"]

Config = Mapping[str, Any]
"""A step's configuration as plain JSON."""

SHORT_S = 10.0


@dataclass(frozen=True)
class Cost:
    """Machine-seconds and disk of a job; seconds None: nothing is known of it.

    `measured`: the seconds are those of an earlier run of this very job.
    """

    seconds: float | None
    gigabytes: float
    measured: bool = False


UNKNOWN = Cost(None, 0.0)


def short(key: str, config: Config, samples: int) -> Cost:
    """Cost of a job that takes seconds."""
    return Cost(SHORT_S, 0.01)


def unlimited(config: Config) -> str | None:
    """Whatever the configuration, the step can be executed."""
    return None


def no_programs(config: Config) -> Mapping[str, str]:
    """Whatever the configuration, the step starts nothing that its environment lacks."""
    return {}


@dataclass(frozen=True)
class StepSpec:
    """One step.

    `module`: what `python -m` starts. `says`: what is printed before the job's name when it starts.
    `axes`: the axes its configuration may depend on; a configuration that differs between two cells
    that agree on these is rejected. `needs` maps the role of an input to the step that makes it
    ("weights" stands for the last of model, quantize, prune and finetune that the cell has so far).
    `sources`: globs of the code that can change its results, besides a module that is one file.
    `place`: where it runs under a scheduler: here, on the machine that `./reproduce` runs on; on a
    share of a node; or on the nodes of its system. `priority`: of jobs that could start, the one
    with the highest does. `every_cell`: each cell has one, planned from `axes`, `needs` and its key
    of `conf/steps.yaml` alone; others are planned by code of their own in steps/plan/planner.py.
    `planned`: what a configuration is checked against that Reprise can plan but not execute.

    Functions of the configuration: `limitation` says in a sentence why Reprise can't execute it;
    `brings` says what the user has to bring so that it can, and with which setting;
    `programs` maps programs that the machine has to have to the sentence that says so; `cost` also
    takes the job's key and the number of samples in its dataset.
    """

    module: str
    says: str
    config: type[BaseModel]
    stage: Stage
    environment: Environment
    place: Place
    axes: tuple[str, ...]
    needs: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    priority: int = 0
    every_cell: bool = False
    planned: type[BaseModel] | None = None
    limitation: Callable[[Config], str | None] = unlimited
    brings: Callable[[Config], str | None] = unlimited
    programs: Callable[[Config], Mapping[str, str]] = no_programs
    cost: Callable[[str, Config, int], Cost] = short
