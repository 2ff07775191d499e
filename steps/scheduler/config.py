"""Schedulers, as `conf/scheduler/` chooses them."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from steps.strict import Name, Positive, Strict

GpuType = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")]
"""As the plugin takes it."""


class Local(Strict):
    """What a site says of another scheduler is no mistake here: `scheduler=local` is for once."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: Literal["local"]


class Share(Strict):
    """What a job takes of a node that it shares."""

    cpus: Positive
    memory_gb: Positive


class TimeLimit(Strict):
    """A job may take `factor` times what is expected of it and the allowance, in minutes.

    `unknown_min`: of jobs of which nothing is known.
    """

    factor: Annotated[float, Field(ge=1)]
    allowance_min: Positive
    unknown_min: Positive


class Slurm(Strict):
    """One partition. `gpu_types` maps names of hardware to types of the site's Gres, null: its Gres
    has no types.

    `pending_limit_min`: how long a job may wait for a node. `silence_limit_min`: how long Slurm may
    leave questions unanswered.
    """

    name: Literal["slurm"]
    partition: Name | None
    account: Name | None
    qos: Name | None
    reservation: Name | None
    gpu_types: dict[Name, GpuType | None]
    share: Share
    time: TimeLimit
    pending_limit_min: Positive
    silence_limit_min: Positive


Scheduler = Annotated[Local | Slurm, Field(discriminator="name")]
GROUP = "scheduler"


class Choice(Strict):
    """The group as it is composed."""

    scheduler: Scheduler
