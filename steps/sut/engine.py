"""What a run needs of an engine, whichever it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from steps.schema import Engine as EngineConfig
from steps.schema import Generation


@dataclass(frozen=True)
class Request:
    """One sample for the engine: `number` is the caller's, `prompt` its token ids."""

    number: int
    prompt: Sequence[int]


@dataclass
class Events:
    """What one step of an engine brought.

    `first` holds (number, first token id) of requests whose first token has come; `completed`
    holds (number, all token ids) of finished ones, the end-of-sequence token included.
    """

    first: list[tuple[int, int]] = field(default_factory=list)
    completed: list[tuple[int, list[int]]] = field(default_factory=list)


class Engine(Protocol):
    """An engine is used by one thread only: the one that started it.

    `first_tokens` off means that nobody waits for first tokens (Offline), so none are reported.
    """

    def start(
        self, weights: Path, config: EngineConfig, generation: Generation, *, first_tokens: bool
    ) -> None:
        """Load and be ready. Raises UserError if that can't be."""

    def submit(self, requests: Sequence[Request]) -> None: ...

    def step(self) -> Events:
        """Advance all submitted requests by one token or so."""

    def identity(self) -> dict[str, str]:
        """Name, version and device, for the result."""


MAKERS = {"vllm": "steps.sut.vllm_engine:VllmEngine"}
"""Engines by the `kind` of their configuration, imported when a run starts one."""
