"""What the recipes of all shipped weights share."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

THREADS = 1
"""Another number gives other weights; a second thread on shared cores waits more than it works."""


def described(recipe: Mapping[str, object], *libraries: ModuleType) -> dict[str, object]:
    """The recipe with the threads it ran on and the versions of Python, PyTorch and `libraries`, as
    it goes into the manifest."""
    versions = {"python": sys.version.split()[0], "torch": torch.__version__.split("+")[0]}
    versions |= {library.__name__: library.__version__ for library in libraries}
    return {**recipe, "versions": versions, "threads": THREADS}


def output_of(program: str) -> Path:
    """The directory that the command line names."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--output", type=Path, required=True)
    output: Path = parser.parse_args().output
    return output


def trapezoid(step: int, steps: int, warmup_share: float, decay_share: float) -> float:
    """A share of the peak rate that warms up, stays and falls to zero."""
    share = (step + 1) / steps
    return min(1.0, share / warmup_share, (1 - share) / decay_share)


def advance(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step at that rate, the gradient clipped to a norm of 1."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = rate
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
