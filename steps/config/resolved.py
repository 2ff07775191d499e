"""What an engine made of its settings, asked of it after it has started: part of a run's result."""

from typing import Literal

from pydantic import Field, JsonValue

from steps.base.strict import Strict

State = Literal["read", "listed", "in a library", "unread", "unseen"]
"""A variable that `engine.environment` sets: code in Python asked for it; it was only read with the
whole table of vLLM's; a loaded library has its name; nothing asked for it (copies of the whole
environment don't count); or the engine has processes of its own, which aren't watched."""

RESOLVED_FILE = "resolved.json"
"""Beside LoadGen's logs."""


class Resolved(Strict):
    """What the first engine of a run says; `differences` are those of all of them.

    `attention`: name of the backend. `quantization`: the method, "" without one. `kernels`: layers
    that each class computes. `graphs`: the mode of graph capture. `kv_cache_blocks`: how many the
    KV cache has, of `block_size` tokens. `variables`: by the state of each. `unresolved`: arguments
    that no configuration of the engine has. `differences`: what was asked for and isn't so, a
    sentence each. `configuration`: all of it, by section.
    """

    attention: str = ""
    quantization: str = ""
    kernels: dict[str, int] = Field(default_factory=dict)
    graphs: str = ""
    kv_cache_blocks: int | None = None
    block_size: int | None = None
    variables: dict[str, State] = Field(default_factory=dict)
    unresolved: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    configuration: dict[str, JsonValue] = Field(default_factory=dict)
