"""What Reprise can plan but not execute, and what this machine lacks: said before anything runs."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps.groups import Requirement

ENGINES = ("vllm",)
"""Kinds of engines that steps/sut can start."""

SIMULATED = ("fp8", "int2")
"""Formats of steps/rehearsal/compress.py."""

TESTS = ("TEST06",)
"""Compliance tests that steps/compliance_check judges."""

DEVICES: Mapping[str, tuple[str, str]] = {
    "gfx": ("/dev/kfd", "install AMD's driver (amdgpu)"),
    "sm_": ("/dev/nvidiactl", "install NVIDIA's driver"),
}
"""By the start of an architecture: the device its driver makes, and what to do without it."""


def limitation(step: str, config: Mapping[str, Any]) -> str | None:
    """Why Reprise can't execute this step with this configuration; None if it can."""
    if importlib.util.find_spec(f"steps.{step}") is None:
        return f"there is no step that does {step} yet"
    return _LIMITATIONS.get(step, _none)(config)


def missing(requirement: Requirement, devices: Path = Path("/")) -> str | None:
    """What this machine lacks to be (a node of) the system; None if it has it."""
    if requirement.model is None:
        return None
    wanted = f"{requirement.count_per_node} × {requirement.model}"
    if requirement.nodes > 1:
        return (
            f"system {requirement.system} is {requirement.nodes} nodes of {wanted}, and no step "
            "starts engines on other nodes yet"
        )
    prefix = str(requirement.architecture)[:3]
    device, advice = DEVICES[prefix]
    if not (devices / device.lstrip("/")).exists():
        return (
            f"system {requirement.system} needs {wanted}, but this machine has no {device}; run "
            f"it on such a machine or {advice}"
        )
    return None


def _none(config: Mapping[str, Any]) -> str | None:
    return None


def _model(config: Mapping[str, Any]) -> str | None:
    if "embedded" in config:
        return None
    return f"no step fetches {config['repository']} from {config['source']} yet"


def _dataset(config: Mapping[str, Any]) -> str | None:
    return None if config["recipe"] == "rehearsal" else f"no recipe makes {config['recipe']} yet"


def _quantize(config: Mapping[str, Any]) -> str | None:
    tool, wanted = config["tool"], config["format"]
    if tool != "simulated":
        return f"no step runs {tool} yet"
    return None if wanted in SIMULATED else f"{wanted} can't be simulated yet"


def _run(config: Mapping[str, Any]) -> str | None:
    kind = config["engine"].get("kind", ENGINES[0])
    unjudged = _compliance(config)
    return unjudged if kind in ENGINES else f"no engine of kind {kind} can be started yet"


def _accuracy(config: Mapping[str, Any]) -> str | None:
    bounds = config["gates"].get(config["required"], {}).get("minimum")
    return bounds and f"nothing evaluates {', '.join(bounds)} yet"


def _compliance(config: Mapping[str, Any]) -> str | None:
    test = config.get("test")
    return None if test is None or test in TESTS else f"nothing runs {test} yet"


_LIMITATIONS = {
    "model": _model,
    "dataset": _dataset,
    "quantize": _quantize,
    "performance_run": _run,
    "accuracy_run": _run,
    "compliance_run": _run,
    "accuracy_check": _accuracy,
    "compliance_check": _compliance,
}
