"""The order for a journal's process. Without pydantic, whose import costs it more than a minute of
journal.
"""

import json
from dataclasses import asdict, dataclass
from typing import Literal

Tool = Literal["amd-smi", "rocm-smi", "nvidia-smi"]


@dataclass(frozen=True)
class Order:
    """`run`: the run's process. `cpus`: those that it may use. `engines_elsewhere`: engines that
    aren't its children belong to it too (a Ray cluster's, on this machine). `caches`: name and
    path. The others are as in conf/journal.yaml."""

    run: int
    cpus: tuple[int, ...]
    engines_elsewhere: bool
    tool: Tool | None
    tool_limit_s: float
    tool_share: float
    tool_failures: int
    caches: tuple[tuple[str, str], ...]
    passing: tuple[str, ...]
    share: float

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> "Order":
        raw = json.loads(text)
        caches = tuple((name, path) for name, path in raw.pop("caches"))
        cpus, passing = tuple(raw.pop("cpus")), tuple(raw.pop("passing"))
        return cls(**raw, caches=caches, cpus=cpus, passing=passing)
