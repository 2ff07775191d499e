"""What a mirror on this machine serves in the place of a hub and of MLCommons' storage."""

from typing import Literal

from steps.base.strict import Name, Positive, Strict
from steps.config.compression import UpcycleConfig
from steps.config.fetch import Commit
from steps.config.results import Result

ADDRESS: Literal["http://mirror.localhost"] = "http://mirror.localhost"
"""Stands for the mirror in configurations, whichever port it has: a name that no resolver may know
as anything but this machine (RFC 6761, section 6.3)."""

SERVED = "served"
"""The folder of the mirror's step whose paths are those of the addresses."""


class MirroredModel(Strict):
    """Small weights in the place of a model's.

    `served`: in a hub's form or in that of MLCommons' storage. `place`: the hub's repository, or
    the address of the .uri file. `revision`: the hub's commit. `embedded`: the directory of the
    checkout that has the weights. `upcycle`: what makes a mixture of experts of them.
    """

    served: Literal["hub", "storage"]
    place: str
    revision: Commit | None
    embedded: str
    upcycle: UpcycleConfig | None


class MirroredFile(Strict):
    """A table of prompts. `uri`: the address of the .uri file that leads to it. `name`: of its
    file. `rows`: how many prompts it has."""

    uri: str
    name: str
    rows: Positive


class MirroredDataset(Strict):
    """`recipe`: of ReadyDataset, whose columns the prompts have. `evaluation`, `calibration`: the
    files that have them."""

    recipe: Literal["open-orca", "mixtral-15k", "llama3.1-405b"]
    evaluation: MirroredFile
    calibration: MirroredFile


class MirrorConfig(Strict):
    """`name`: of the model whose weights it serves. `address`: where they are fetched from.
    `model`: the small weights. `dataset`: the model's prompts; null: they aren't fetched."""

    name: Name
    address: Literal["http://mirror.localhost"]
    model: MirroredModel
    dataset: MirroredDataset | None


class MirrorResult(Result):
    """`name`: of the model. `files`: how many are served."""

    name: Name
    files: Positive
