"""user.conf as LoadGen reads it."""

import math
from dataclasses import dataclass, field


@dataclass
class Settings:
    """`values`: line and value by key, of the lines that apply; `damaged`: lines that set nothing,
    by number."""

    values: dict[str, tuple[int, float]] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """Values alone; whole ones as integers, so that they are written as they were."""
        found = {key: value for key, (_, value) in self.values.items()}
        return {key: int(n) if n.is_integer() else n for key, n in sorted(found.items())}


def loadgen_model(official: str, scenario: str, said: str | None = None) -> str:
    """The name of a benchmark in LoadGen's mlperf.conf, as its round says it; of one that no round
    says, as others are made: without points and accuracy level."""
    name = said or official.removesuffix("-99.9").removesuffix("-99").replace(".", "_")
    return f"{name}-interactive" if scenario == "Interactive" else name


def read_settings(text: str, model: str, scenario: str) -> Settings:
    """What a run of `scenario`, as LoadGen calls it, takes from the file: the more specific key
    wins, model.scenario before *.scenario, model.* and *.*."""
    found: dict[str, tuple[int, int, float]] = {}
    damaged: dict[int, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        left, equals, right = (part.strip() for part in line.partition("="))
        parts = left.rsplit(".", 2)
        value = _number(right)
        if not equals or len(parts) != 3 or math.isnan(value):
            damaged[number] = line
            continue
        if parts[0] not in (model, "*") or parts[1] not in (scenario, "*"):
            continue
        rank = 2 * (parts[1] != "*") + (parts[0] != "*")
        if parts[2] not in found or rank >= found[parts[2]][0]:
            found[parts[2]] = (rank, number, value)
    return Settings({key: (line, value) for key, (_, line, value) in found.items()}, damaged)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
