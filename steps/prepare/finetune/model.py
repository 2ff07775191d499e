"""The messages between the step and its training processes."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from steps.base.strict import Strict
from steps.config.compression import FinetuneConfig


class Job(Strict):
    """What to train: `model` a checkpoint's directory, `state` where samples and states are."""

    training: FinetuneConfig
    model: str
    state: str


class Event(Strict):
    """A line of the first process. `step` of `steps` optimizer steps are done.

    `error` is one sentence for the user. The last event has `adapters`, their directory, what was
    `measured` (losses in nats per token, samples), and the `versions` that trained them.
    """

    MARK: ClassVar[str] = "finetune-event "

    step: int = 0
    steps: int = 0
    error: str | None = None
    adapters: str | None = None
    measured: Mapping[str, float] = Field(default_factory=dict)
    versions: Mapping[str, str] = Field(default_factory=dict)
