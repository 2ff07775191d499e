"""Where an engine keeps what it compiles: one directory per engine, which outlives the run.

Engines that compile into one directory race, and some write half-finished files there. A step's
container has a read-only root and a /tmp in memory, where gigabytes of kernels would go.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from steps.base.errors import UserError

FOLDER = Path("results/caches")

LEAST_GB = 2.0
"""What has to be free: an estimate. AITER's kernels, Triton's and inductor's take gigabytes."""

VARIABLES: Mapping[str, str] = {
    "HOME": ".",
    "XDG_CACHE_HOME": "cache",
    "VLLM_CACHE_ROOT": "vllm",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "CUDA_CACHE_PATH": "cuda",
}
"""Directories below the engine's own. By HOME: AITER, which copies what an image brings into
.aiter/jit below it (AITER_JIT_DIR would leave that out, and all of it would be compiled again),
hipBLASLt and rocBLAS, MIOpen, comgr."""


def of_run(environment: Path) -> str:
    """The directory of all engines that run in an environment, relative to the checkout.

    `environment`: the manifest that stands for it, or for its image; another image compiles again.
    """
    return str(FOLDER / environment.parent.name)


def use(folder: Path) -> dict[str, str]:
    """Make an engine's directories; returns the variables that name them.

    Raises UserError for a directory that can't be written or has too little room.
    """
    found = {name: folder / below for name, below in VARIABLES.items()}
    try:
        for path in found.values():
            path.mkdir(parents=True, exist_ok=True)
        free_gb = shutil.disk_usage(folder).free / 1e9
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise UserError(
            f"{folder}, where the engine keeps what it compiles, can't be made "
            f"({error.strerror}); fix that, or make results/caches a link to another disk"
        ) from error
    if not writable or free_gb < LEAST_GB:
        what = f"has {free_gb:.1f} GB free" if writable else "can't be written"
        raise UserError(
            f"{folder}, where the engine keeps what it compiles, {what} and needs {LEAST_GB:g} GB; "
            "free some, or make results/caches a link to another disk"
        )
    return {name: str(path) for name, path in found.items()}
