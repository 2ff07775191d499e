"""Weights in the cell's precision."""

from collections.abc import Mapping
from typing import Any

from steps.config.compression import QuantizeConfig
from steps.plan.spec import Config, Cost, StepSpec, short
from steps.plan.specs.shared import WEIGHTS, WEIGHTS_NEEDS

SIMULATED = ("fp8", "int2")
"""Formats of steps/prepare/rehearsal/compress.py."""

QUARK = "0.13"
"""The AMD Quark of envs/compress.lock; AMD's own recipes were written for 0.9, in containers."""

QUARK_S = 60.0


def limitation(config: Config) -> str | None:
    tool, wanted, options = config.get("tool"), config.get("format"), config["options"]
    if tool == "simulated":
        return None if wanted in SIMULATED else f"{wanted} can't be simulated"
    if tool == "quark":
        return _quark(options)
    return None if tool == "streaming" else f"this version can't run {tool}"


def _quark(options: Mapping[str, Any]) -> str | None:
    if options.get("version") != QUARK:
        return f"this version runs AMD Quark {QUARK}, not {options.get('version')}"
    return None


def cost(key: str, config: Config, samples: int) -> Cost:
    """AMD Quark's import alone takes 20 to 60 s; larger models than the rehearsal's: not known."""
    if config["tool"] == "simulated":
        return short(key, config, samples)
    return Cost(QUARK_S if limitation(config) is None else None, 0.01)


SPEC = StepSpec(
    module="steps.prepare.quantize",
    says="quantize",
    config=QuantizeConfig,
    stage="artifacts",
    environment="prepare",
    place="nodes",
    axes=WEIGHTS,
    needs={**WEIGHTS_NEEDS, "dataset": "dataset"},
    limitation=limitation,
    cost=cost,
)
