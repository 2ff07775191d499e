"""Schedulers, as `conf/scheduler/` chooses them."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from typing_extensions import Self

from steps.base.strict import Name, NotNegative, Positive, Strict
from steps.config.runtime import AbsolutePath

GpuType = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")]
"""As the plugin takes it."""


class Local(Strict):
    """What a site says of another scheduler is no mistake here: `scheduler=local` is for once."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: Literal["local"]


class Share(Strict):
    """What a job takes of a shared node. `cpus`: how many cores. `memory_gb`: how many GB."""

    cpus: Positive
    memory_gb: Positive


class TimeLimit(Strict):
    """Limits of jobs: `factor` times what a job is expected to take, and the allowance.

    `factor`: of the plan's estimate. `allowance_min`: minutes on top of it. `unknown_min`: minutes
    for jobs of which nothing is known.
    """

    factor: Annotated[float, Field(ge=1)]
    allowance_min: Positive
    unknown_min: Positive


class Slurm(Strict):
    """One partition.

    `partition`, `account`, `qos` and `reservation`: as sbatch takes them; null: the cluster's
    default. `gpu_types`: maps names of hardware to types of the site's Gres; null: its Gres has no
    types. `share`: what a job takes that needs no node of its own. `time`: limits of jobs.
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


Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
"""A name in Kubernetes, as RFC 1123 has it."""

Qualified = Annotated[
    str, Field(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
]
"""A label's key or a resource in Kubernetes."""

Registry = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*$")]


class Volume(Strict):
    """What pods see the checkout on.

    `claim`: a PersistentVolumeClaim of the namespace; null: the nodes' own file system, where the
    checkout lies at the same path as here. `mounted_at`: where this machine has the claim's
    content; null without a claim.
    """

    claim: Label | None
    mounted_at: AbsolutePath | None

    @model_validator(mode="after")
    def a_claim_is_mounted_somewhere(self) -> Self:
        if (self.claim is None) != (self.mounted_at is None):
            raise ValueError("claim and mounted_at go together; set both, or neither")
        return self


class User(Strict):
    """The user and group of a pod's processes.

    `uid`: the user's number; root's isn't taken. `gid`: the group's number.
    """

    uid: Positive
    gid: Positive


class Kubernetes(Strict):
    """One namespace.

    `kubeconfig`: its path; None: as kubectl finds it. `context`: of the kubeconfig; None: the
    current one. `namespace`: where Jobs are made. `registry`: where images are pushed to, with a
    path; None: the nodes have them. `image_pull_secrets`: names of Secrets of the namespace.
    `volume`: what pods see the checkout on. `user`: of the pods' processes; None: the user who
    starts ./reproduce. `time`: limits of Jobs. `group_ids`: numbers of the groups that hardware
    names. `accelerators`: the device plugin's resource, by the first three letters of an
    architecture. `resource_naming_strategy`: that of AMD's device plugin; "mixed" names partitions,
    as amd.com/cpx_nps1. `node_labels`: of nodes of a hardware. `shared_namespaces`: whose pods may
    be on the node of a measured run; those of a DaemonSet may anyway. `pending_limit_min`: how long
    a pod may wait for a node. `silence_limit_min`: how long the API may leave questions unanswered.
    """

    name: Literal["kubernetes"]
    kubeconfig: AbsolutePath | None
    context: str | None
    namespace: Label
    registry: Registry | None
    image_pull_secrets: tuple[Label, ...]
    volume: Volume
    user: User | None
    group_ids: dict[Name, NotNegative]
    accelerators: dict[str, Qualified]
    resource_naming_strategy: Literal["single", "mixed"]
    node_labels: dict[Name, dict[Qualified, str]]
    shared_namespaces: tuple[Label, ...]
    time: TimeLimit
    pending_limit_min: Positive
    silence_limit_min: Positive


Scheduler = Annotated[Local | Slurm | Kubernetes, Field(discriminator="name")]
GROUP = "scheduler"
