"""The checks: pure functions from a plan's needs and the machine's state to findings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from steps.commands.doctor.needs import Needs
from steps.commands.doctor.settings import Clock, Settings
from steps.commands.doctor.state import State
from steps.config.accelerators import Modes
from steps.machine.probes.differs import Aspect, Difference, differences
from steps.machine.probes.values import Accelerator as Found
from steps.machine.probes.values import Node
from steps.prepare.fetch.hub import address

ENGINES = {
    "docker": "sudo apt-get install docker.io; sudo systemctl start docker; "
    "sudo usermod -a -G docker $USER, then log in again",
    "podman": "sudo apt-get install podman catatonit; sudo systemctl enable --now podman.socket; "
    "its socket is root's: as another user systemctl --user enable --now podman.socket, and "
    "runtime.socket=unix:///run/user/$UID/podman/podman.sock",
}
"""How to install each."""

Level = Literal["ok", "warn", "fail"]

RELOAD = "then sudo amd-smi reset --reload-driver (ROCm 7 and later)"
"""A memory partition takes effect when the driver is loaded again (AMD SMI changelog, 7.0)."""


@dataclass(frozen=True)
class Finding:
    """One line of the report. "fail" keeps a run from starting; "warn" costs speed, or could not
    be checked. `fix`: what to type or do, "" if nothing."""

    level: Level
    check: str
    says: str
    fix: str = ""


Check = Callable[[Needs, State, Settings], Iterator[Finding]]


def findings(needs: Needs, state: State, settings: Settings) -> list[Finding]:
    """All checks, in the order in which a run would fail on them."""
    return [finding for check in CHECKS for finding in check(needs, state, settings)]


def may_start(found: list[Finding]) -> bool:
    return all(finding.level != "fail" for finding in found)


# ---- what a run can't do without ----------------------------------------------------------------


def _disk(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    says = f"{state.free_gb:.1f} GB free in {state.mount}, {needs.disk_gb:.1f} GB needed"
    if state.free_gb >= needs.disk_gb:
        yield Finding("ok", "disk", says)
    else:
        lacking = max(needs.disk_gb - state.free_gb, 1)
        fix = f"free {lacking:.0f} GB there, or make results/ a link to a larger disk"
        yield Finding("fail", "disk", says, fix)


def _memory(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    memory = state.node.memory
    if memory is None or memory.available_kib is None:
        yield Finding("warn", "memory", "/proc/meminfo doesn't say what is free", "mount /proc")
        return
    free = memory.available_kib * 1024 / 1e9
    says = f"{free:.1f} GB available, {needs.memory_gb:.1f} GB needed"
    if free < settings.memory_floor_gb:
        fix = "end other programs (ps aux --sort=-rss | head shows the largest)"
        yield Finding("fail", "memory", says, fix)
    elif free < needs.memory_gb:
        total = (memory.total_kib or 0) * 1024 / 1e9
        fix = "end other programs" if total >= needs.memory_gb else "add memory"
        says = f"{free:.1f} GB available, the source weights in 16 bits take {needs.memory_gb:.1f}"
        yield Finding("warn", "memory", says, f"{fix}, or expect every load to read the disk")
    else:
        yield Finding("ok", "memory", says)


def _accelerators(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    check = "accelerators"
    if needs.starts_nodes:
        return  # on the nodes (steps/commands/doctor/nodes.py)
    if not needs.accelerators:
        yield Finding("ok", check, "the plan needs none")
        return
    node, wanted = state.node, needs.accelerators[0]
    names = " or ".join(f"{a.count_per_node} {a.model}" for a in needs.accelerators)
    if not node.accelerator_count:
        fix = "run on a machine that has them; ./reproduce plan works anywhere"
        yield Finding("fail", check, f"none on the PCI bus, the plan needs {names}", fix)
    elif not node.accelerators:
        reasons = [problem for problem in node.problems if "accelerator" in problem]
        fix = "; ".join(reasons) or "load the driver"
        yield Finding("fail", check, f"{node.accelerator_count} on the bus, no tool lists any", fix)
    elif of_it := _differences(needs, node, "accelerators"):
        fix = "choose the system of this machine (./reproduce ls lists them)"
        if len(node.accelerators) < wanted.count_per_node:
            fix = "choose a system with as many, or look in dmesg for the missing ones"
        yield Finding("fail", check, f"{of_it[0].says}; the plan needs {names}", fix)
    else:
        model = node.accelerators[0].model
        yield Finding("ok", check, f"{node.accelerator_count} {model}")


def _differences(needs: Needs, node: Node, aspect: Aspect) -> list[Difference]:
    """Those of the first kind of node that the plan has, none if this machine is of another."""
    modes = needs.partitions[0] if len(needs.partitions) == 1 else None
    found = [
        [one for one in differences(kind, modes, node.accelerators) if one.aspect == aspect]
        for kind in needs.accelerators
    ]
    return found[0] if all(found) else []


def _driver(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    found = state.node.accelerators
    if not needs.accelerators or not found or needs.starts_nodes:
        return
    if of_it := _differences(needs, state.node, "driver"):
        module = "amdgpu" if found[0].vendor == "AMD" else "nvidia"
        fix = f"load one (sudo modprobe {module}), see dmesg for why it isn't"
        yield Finding("fail", "driver", of_it[0].says, fix)
    else:
        yield Finding("ok", "driver", str(found[0].driver))
    if state.closed_files:
        says = f"this user may not open {', '.join(state.closed_files)}"
        fix = "sudo usermod -a -G render,video $USER, then log in again"
        yield Finding("fail", "device files", says, fix)


def _partitions(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    if not needs.partitions or not state.node.accelerators or needs.starts_nodes:
        return
    if len(needs.partitions) > 1:
        modes = " and ".join(f"{p.compute} {p.memory}" for p in needs.partitions)
        says = f"the plan's benchmarks need different ones: {modes}"
        fix = "run one benchmark at a time, as benchmark=NAME"
        yield Finding("fail", "partition mode", says, fix)
        return
    (wanted,) = needs.partitions
    yield _mode(needs, state.node, "compute partition", wanted)
    yield _mode(needs, state.node, "memory partition", wanted)


def _mode(needs: Needs, node: Node, aspect: Aspect, modes: Modes) -> Finding:
    """Not reported isn't a difference: some drivers, in virtual machines above all, report none."""
    if aspect == "compute partition":
        wanted: str = modes.compute
        found = {one.compute_partition for one in node.accelerators}
        fix = f"sudo amd-smi set --compute-partition {wanted}"
    else:
        wanted = modes.memory
        found = {one.memory_partition for one in node.accelerators}
        fix = f"sudo amd-smi set --memory-partition {wanted}, {RELOAD}"
    if of_it := _differences(needs, node, aspect):
        return Finding("fail", aspect, of_it[0].says, fix)
    if found == {None}:
        return Finding("warn", aspect, f"no tool reports it, the plan needs {wanted}", fix)
    if None in found:
        return Finding("warn", aspect, f"{wanted}, but not every device reports it", fix)
    return Finding("ok", aspect, wanted)


def _containers(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    """Checks only the engines that jobs name, as a run does."""
    for engine in needs.engines:
        found = state.engines[engine.socket]
        if found.version is not None:
            says = f"{engine.engine} {found.version}".strip()
            yield Finding("ok", "container engine", says)
        else:
            yield Finding("fail", "container engine", found.complaint, ENGINES[engine.engine])


def _environments(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    if "cpu" in needs.environments and not state.numa_library:
        says = "vLLM on the CPU loads libnuma.so.1, which isn't installed"
        yield Finding("fail", "libnuma", says, "sudo apt-get install libnuma1")


def _access(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    for repository in needs.repositories:
        found, check = state.access[repository.name], f"access to {repository.name}"
        if found.state == "granted":
            yield Finding("ok", check, found.reason)
        else:
            fix = f"accept the licence at {address(repository.endpoint)}/{repository.name}, "
            fix += "then hf auth login, or set HF_TOKEN"
            yield Finding("fail" if found.state == "denied" else "warn", check, found.reason, fix)


def _cluster(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    if needs.nodes == 1 or needs.starts_nodes:
        return
    ray = state.node.ray
    if ray is None:
        for port in state.taken_ports:
            says = "another program listens there, and Ray's head needs it"
            fix = f"end it (sudo ss -ltnp 'sport = :{port}' names it)"
            yield Finding("fail", f"port {port}", says, fix)
        says = f"no cluster answers, the plan needs {needs.nodes} nodes"
        fix = "ray start --head here, and ray start --address=HEAD:6379 on every other node"
        yield Finding("fail", "Ray", says, fix)
        return
    says = f"{ray.nodes} nodes, {ray.gpus:g} accelerators"
    if ray.nodes == needs.nodes:
        yield Finding("ok", "Ray", says)
    else:
        fix = "ray start --address=HEAD:6379 on the missing nodes, or choose another cluster"
        yield Finding("fail", "Ray", f"{says}; the plan needs {needs.nodes} nodes", fix)


# ---- what changes the speed ---------------------------------------------------------------------


def _clocks(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    found = state.node.accelerators
    if not needs.clocks or not found or found[0].vendor != "AMD" or needs.starts_nodes:
        return
    for point, clock in needs.clocks.items():
        check, wanted = f"clocks, {point}", wanted_clock(clock)
        now = {clock_of(one, clock) for one in found}
        if now == {wanted}:
            yield Finding("ok", check, wanted)
        else:
            says = f"{' and '.join(sorted(now))}; submitted with {wanted}"
            yield Finding("warn", check, says, f"before its run: {_set_clock(clock)}")


def wanted_clock(clock: Clock | None) -> str:
    if clock is None:
        return "performance level auto, SoC pstate 0"
    return (
        f"performance level perf_determinism at {clock.max_clock_mhz} MHz, "
        f"SoC pstate {clock.soc_pstate}"
    )


def clock_of(found: Found, clock: Clock | None) -> str:
    """In the same words; the clock's bound says something only where there should be one."""
    bound = f" at {found.max_clock_mhz or 'unknown'} MHz" if clock else ""
    pstate = "unknown" if found.soc_pstate is None else found.soc_pstate
    return f"performance level {found.performance_level or 'unknown'}{bound}, SoC pstate {pstate}"


def _set_clock(clock: Clock | None) -> str:
    determinism = (
        f"--setperfdeterminism {clock.max_clock_mhz}" if clock else "--resetperfdeterminism"
    )
    pstate = clock.soc_pstate if clock else 0
    return f"sudo rocm-smi {determinism}; sudo amd-smi set --soc-pstate {pstate} -g all"


def _power(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    found = state.node.accelerators if needs.accelerators else ()
    known = [(a, a.power_cap_w, a.power_limit_w) for a in found if a.power_cap_w]
    lowered = {(cap, limit, a.vendor) for a, cap, limit in known if limit and cap and cap < limit}
    for cap, limit, vendor in sorted(lowered):
        says = f"capped at {cap:g} W of {limit:g} W"
        amd = f"sudo amd-smi set --power-cap {limit:g}"
        fix = amd if vendor == "AMD" else f"sudo nvidia-smi --power-limit={limit:g}"
        yield Finding("warn", "power cap", says, fix)
    if known and not lowered:
        yield Finding("ok", "power cap", ", ".join(sorted({f"{cap:g} W" for _, cap, _ in known})))


def _host(needs: Needs, state: State, settings: Settings) -> Iterator[Finding]:
    if not needs.accelerators or needs.starts_nodes:
        return
    for setting in settings.host:
        values = state.host.get(setting.path, ())
        if values == (setting.wanted,):
            yield Finding("ok", setting.name, setting.wanted)
        elif not values:
            fix = "firmware or a hypervisor decides it: set it there"
            yield Finding("warn", setting.name, f"this kernel has no /{setting.path}", fix)
        else:
            says = f"{', '.join(values)}; submitted with {setting.wanted}"
            yield Finding("warn", setting.name, says, setting.fix)


CHECKS: tuple[Check, ...] = (
    *(_disk, _memory, _accelerators, _driver, _partitions, _containers, _environments),
    *(_access, _cluster, _clocks, _power, _host),
)
