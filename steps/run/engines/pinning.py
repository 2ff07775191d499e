"""Which CPUs, memory and accelerators each engine of a node gets."""

import ctypes
import itertools
import os
import platform
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the Snakefile asks how busy CPUs are, and needs no schema
    from steps.config.engine import Engine

ROOT = Path("/")
NODES = Path("/sys/devices/system/node")
LOADS = Path("/proc/stat")
QUOTAS = Path("/sys/fs/cgroup")
MEMBER = Path("/proc/self/cgroup")
SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}
"""The number of the system call, by machine (the kernel's tables of calls)."""
PREFERRED = 1
"""MPOL_PREFERRED of linux/mempolicy.h. MPOL_BIND would end a process whose node is full."""
MASK_BITS = 64
LOOK_S = 0.3
"""How long CPUs are watched for other work."""


class Apart(NamedTuple):
    """CPUs of the engine's thread and of all others in one process; empty: left to the system."""

    engine: tuple[int, ...]
    others: tuple[int, ...]


TOGETHER = Apart((), ())


class Place(NamedTuple):
    """What one engine of a node gets. `devices`: numbers of its accelerators, as "0,1"; "" for an
    engine that isn't given any. `cpus`: empty if it isn't bound. `memory`: the NUMA node that its
    memory is taken from first; None: whichever the kernel chooses. `variables`: in its environment.
    """

    devices: str
    cpus: tuple[int, ...]
    memory: int | None
    variables: dict[str, str]


def take_place(config: "Engine", place: int) -> Place:
    """Bind this process to what `place_of` says. Call it before the engine is imported:
    accelerators are counted at import.
    """
    found = place_of(config, place)
    if found.cpus and not keep_to(found.cpus):
        found = found._replace(cpus=())
    if found.memory is not None and not take_memory_from(found.memory):
        found = found._replace(memory=None)
    os.environ.update(found.variables)
    return found


def place_of(
    config: "Engine", place: int, root: Path = ROOT, allowed: Collection[int] | None = None
) -> Place:
    """The place of one of a node's engines.

    CPUs and memory are those of the NUMA node that the engine's accelerators are on; engines on
    the same node share its cores evenly. Where the kernel doesn't say where accelerators are, all
    engines share all CPUs. `allowed`: CPUs that this process may use.
    """
    placement = config.placement
    variable = placement.device_variable
    may_use = os.sched_getaffinity(0) if allowed is None else set(allowed)
    home = root / NODES.relative_to("/")
    if variable == "none":
        cpus = cpu_shares(placement.engines_per_node, cpus_by_numa_node(home, may_use))
        return Place("", cpus[place] if placement.pinned else (), None, {})
    per_engine = getattr(config.arguments, "tensor_parallel_size", 1)
    from steps.run.engines import accelerators

    numbers = devices(place, per_engine)
    variables = {variable: numbers, **accelerators.order(variable)}
    if not placement.pinned:
        return Place(numbers, (), None, variables)
    known = accelerators.numa_nodes(variable, root)
    near = [_near(engine, per_engine, known) for engine in range(placement.engines_per_node)]
    beside = [engine for engine, nodes in enumerate(near) if nodes == near[place]]
    cores = [cpu for cpu in _by_core(near[place], root) if cpu in may_use]
    if not near[place] or not cores:
        ordered = cpus_by_numa_node(home, may_use)
        return Place(
            numbers, cpu_shares(placement.engines_per_node, ordered)[place], None, variables
        )
    share = cpu_shares(len(beside), cores)[beside.index(place)]
    memory = min(near[place]) if len(near[place]) == 1 else None
    return Place(numbers, tuple(sorted(share)), memory, variables)


def _near(engine: int, per_engine: int, known: Sequence[int | None]) -> frozenset[int]:
    """The NUMA nodes of an engine's accelerators; empty unless all are known."""
    first = engine * per_engine
    nodes = known[first : first + per_engine]
    found = frozenset(node for node in nodes if node is not None)
    return found if len(nodes) == per_engine and None not in nodes else frozenset()


def _by_core(nodes: Collection[int], root: Path) -> list[int]:
    """The CPUs of NUMA nodes, both threads of a core side by side, so that a share has whole
    cores.
    """
    home = root / NODES.relative_to("/")
    cpus = [cpu for node in sorted(nodes) for cpu in _listed(home / f"node{node}/cpulist")]
    core = root / "sys/devices/system/cpu"
    first = {
        cpu: min(_listed(core / f"cpu{cpu}/topology/thread_siblings_list"), default=cpu)
        for cpu in cpus
    }
    return sorted(cpus, key=lambda cpu: (first[cpu], cpu))


def _listed(path: Path) -> list[int]:
    try:
        return parsed_list(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return []


def take_memory_from(node: int) -> bool:
    """Take this process's memory, and that of what it starts, from a NUMA node as long as it has
    some; False if the system refuses. Without libnuma, which images don't all have.
    """
    number = SET_MEMPOLICY.get(platform.machine())
    if number is None or node >= MASK_BITS - 1:
        return False
    mask = ctypes.c_ulong(1 << node)
    call = ctypes.CDLL(None, use_errno=True).syscall
    return bool(call(number, PREFERRED, ctypes.byref(mask), ctypes.c_ulong(MASK_BITS)) == 0)


def keep_to(cpus: Collection[int]) -> bool:
    """Bind the calling thread and those that it will start; False if the system refuses.

    CPUs can be taken from a process at any time, and some sandboxes bind nothing at all: the run
    then goes on unbound.
    """
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        return False
    return True


def apart(config: "Engine") -> Apart:
    """CPUs for an engine in LoadGen's process: the idlest, as many as it has threads; empty if it
    needs all of them. Takes LOOK_S.
    """
    ordered = cpus_by_numa_node()
    if not config.placement.pinned or not 0 < config.threads < len(ordered):
        return TOGETHER
    return split(config.threads, ordered, busy(LOOK_S))


def split(threads: int, ordered: Sequence[int], load: dict[int, float]) -> Apart:
    """The engine gets the last of equally busy CPUs: the first one serves interrupts."""
    idle_first = sorted(reversed(ordered), key=lambda cpu: round(load.get(cpu, 0.0), 1))
    engine = set(idle_first[:threads])
    others = (cpu for cpu in ordered if cpu not in engine)
    return Apart(tuple(sorted(engine)), tuple(sorted(others)))


def busy(seconds: float, stat: Path = LOADS) -> dict[int, float]:
    """Each CPU's busy share of time; empty if the kernel doesn't report it."""
    before = _ticks(stat)
    time.sleep(seconds)
    after = _ticks(stat)
    found = {}
    for cpu in before.keys() & after.keys():
        idle, whole = (after[cpu][n] - before[cpu][n] for n in (0, 1))
        found[cpu] = 1 - idle / whole if whole > 0 else 0.0
    return found


def busy_share() -> float:
    """The busy share of each CPU that this process may use, over LOOK_S."""
    load, allowed = busy(LOOK_S), os.sched_getaffinity(0)
    shares = [share for cpu, share in load.items() if cpu in allowed]
    return sum(shares) / len(shares) if shares else 0.0


def _ticks(stat: Path) -> dict[int, tuple[int, int]]:
    """Idle and all ticks since the start of the machine, by CPU."""
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    found = {}
    for name, *values in filter(None, (line.split() for line in lines)):
        if name.startswith("cpu") and name[3:].isdecimal():
            numbers = [int(value) for value in values[:8]]  # what follows is counted in them
            found[int(name[3:])] = (sum(numbers[3:5]), sum(numbers))
    return found


def quota(home: Path = QUOTAS, member: Path = MEMBER) -> float | None:
    """CPUs' worth of time that this process may use by its control groups, of either version, made
    by anything (a container, Slurm, systemd); None without a limit.
    """
    shares = map(_share, _groups(home, member))
    return min((share for share in shares if share is not None), default=None)


def _groups(home: Path, member: Path) -> Iterator[Path]:
    """Folders of this process's groups; a container may see its own as the root."""
    yield from (home, home / "cpu")
    try:
        lines = member.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = home / "cpu" if controllers else home
        if not controllers or "cpu" in controllers.split(","):
            for below in (Path(path), *Path(path).parents):
                yield top / below.relative_to("/")


def _share(group: Path) -> float | None:
    try:
        if (group / "cpu.max").is_file():
            limit, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            limit, period = (
                (group / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
                for name in ("quota", "period")
            )
        return None if limit in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def cpu_shares(engines: int, ordered: Sequence[int]) -> list[tuple[int, ...]]:
    """Equal shares of the CPUs, in this order; with fewer CPUs than engines, several share one."""
    if engines >= len(ordered):
        return [(ordered[n * len(ordered) // engines],) for n in range(engines)]
    edges = [n * len(ordered) // engines for n in range(engines + 1)]
    return [tuple(ordered[a:b]) for a, b in itertools.pairwise(edges)]


def cpus_by_numa_node(home: Path = NODES, allowed: Collection[int] | None = None) -> list[int]:
    """CPUs that this process may use, NUMA node by NUMA node, so that shares stay within one.

    Memory follows: Linux places a page on the node of the CPU that first writes to it.
    """
    may_use = os.sched_getaffinity(0) if allowed is None else allowed
    ordered: list[int] = []
    for node in sorted(home.glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        listed = parsed_list((node / "cpulist").read_text(encoding="ascii"))
        ordered.extend(cpu for cpu in listed if cpu in may_use)
    return ordered or sorted(may_use)


def parsed_list(text: str) -> list[int]:
    """The kernel's lists of CPUs, as "0-3,8,10-11"."""
    found: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found.extend(range(int(first), int(last or first) + 1))
    return found


def listed(cpus: Iterable[int]) -> str:
    """CPUs as taskset takes them."""
    return ",".join(map(str, cpus))


def devices(engine: int, per_engine: int) -> str:
    """Numbers of one engine's accelerators on its node, as the drivers' variables take them."""
    first = engine * per_engine
    return ",".join(str(number) for number in range(first, first + per_engine))
