"""How many threads of arithmetic a process computes with.

Each library reads a variable of its own, once, when it is imported or first computes. Setting one
of them leaves the others as the parent process set them: Snakemake exports a job's cores in six of
them, and MKL's decides over OpenMP's in PyTorch.
"""

import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from steps.base.processes import TICK_S

COUNTS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Variables that say how many."""

OVERRULING = (
    *("MKL_DOMAIN_NUM_THREADS", "MKL_DYNAMIC", "OMP_DYNAMIC", "OMP_THREAD_LIMIT"),
    *("OMP_PLACES", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET"),
)
"""Variables that overrule them, or bind threads to cores that the process may not use."""

BINDING = "VLLM_CPU_OMP_THREADS_BIND"
"""vLLM's on a CPU: by default it binds threads, and starts as many as there are cores
in the processes that it makes."""

NUMBERS = re.compile(
    r"\b(?:at::get_num_threads|omp_get_max_threads|mkl_get_max_threads)\(\) : (\d+)"
)

TASKS = Path("/proc/self/task")
LEAST_S = 0.05
"""Seconds of processor time in all, below which the split over threads says nothing."""


def take(count: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Have libraries that are imported after this compute with so many threads."""
    environment.update(dict.fromkeys(COUNTS, str(count)), **{BINDING: "nobind"})
    for name in OVERRULING:
        environment.pop(name, None)


def prefix(count: int) -> str:
    """The same as shell code, to put in front of a command."""
    counts = " ".join(f"{name}={count}" for name in COUNTS)
    return f"export {counts} {BINDING}=nobind; unset {' '.join(OVERRULING)}; "


def told(count: int) -> None:
    """Have PyTorch compute with so many threads, whatever it read; before it first computes."""
    import torch

    torch.set_num_threads(count)


def computing() -> int:
    """The most that PyTorch, OpenMP or MKL says it computes with in this thread."""
    import torch

    return max(map(int, NUMBERS.findall(torch.__config__.parallel_info())), default=0)


def spent() -> dict[int, float]:
    """The processor time of each thread of this process so far, in seconds; empty without /proc."""
    found = {}
    for task in TASKS.glob("[0-9]*"):
        try:
            fields = (task / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended
            continue
        user, system = fields.rpartition(")")[2].split()[11:13]
        found[int(task.name)] = (int(user) + int(system)) * TICK_S
    return found


def computed(before: Mapping[int, float], after: Mapping[int, float], expected: int) -> int:
    """How many threads did the work between two results of `spent`; `expected` should have.

    One more thread would have spent 1 / (expected + 1) of all the time, on any number of cores;
    half of that counts as work.
    """
    times = [seconds - before.get(task, 0.0) for task, seconds in after.items()]
    whole = sum(times)
    if whole < LEAST_S:
        return 0
    return sum(1 for seconds in times if seconds > whole / (expected + 1) / 2)
