"""The nodes that a run would start engines on, all asked at once: a line each, and what is wrong.

The questions and answers are those of a run (steps/run/placing/seen.py), and so is what keeps it
from starting.
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence

from tabulate import tabulate

from steps import ROOT
from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.base.strict import Strict
from steps.base.version import Version
from steps.commands.doctor.checks import Finding, clock_of, wanted_clock
from steps.commands.doctor.settings import Clock
from steps.config.engine import Placement
from steps.machine.probes.differs import unfit
from steps.machine.probes.values import Accelerator
from steps.machine.runtime.image import Image
from steps.plan.plan import Job, Plan
from steps.run.placing.agents import ASK_LIMIT_S, Agents, Contained, Heard, address
from steps.run.placing.door import Door
from steps.run.placing.launch import SLURM, Order, engines_of
from steps.run.placing.seen import HEADERS, complaints, in_a_line
from steps.schedule.launching import starts_nodes


class Asked(Strict):
    """A table with a line for every node, "" if none were asked, and what was found."""

    table: str
    findings: tuple[Finding, ...]


def asked(plan: Plan, clocks: Mapping[str, Clock | None], *, in_job: bool) -> Asked:
    """The nodes of a plan's runs. `in_job`: whether this process is in a job of Slurm."""
    runs = (job for job in plan.jobs if job.step == "performance_run")
    run = next(filter(starts_nodes, runs), None)
    if run is None:
        return Asked(table="", findings=())
    placement = _placement(run)
    if placement.cluster == SLURM and not in_job:
        says = "not asked, as this isn't a job of Slurm"
        fix = f"salloc --nodes={placement.nodes} --exclusive ./reproduce doctor ..."
        return Asked(table="", findings=(Finding("warn", "nodes", says, fix),))
    found: list[Finding] = []
    agents = None
    try:
        agents = Agents(_order(run, placement), _contained(run))
        heard = agents.asked(ASK_LIMIT_S, hold=False)
        found += _found(agents, heard, placement, clocks)
        found += _reached(agents, heard, placement)
    except UserError as error:
        return Asked(table="", findings=(*found, Finding("fail", "nodes", str(error))))
    finally:
        if agents is not None:
            agents.shutdown()
    return Asked(table=table(heard), findings=tuple(found))


def _placement(run: Job) -> Placement:
    placement = json.loads(run.config)["engine"]["placement"]
    return Placement.model_validate_json(json.dumps(placement))


def _order(run: Job, placement: Placement) -> Order:
    weights = run.inputs["model"]
    return Order(
        address=placement.cluster,
        engines=engines_of(placement),
        kinds=placement.kinds,
        hosts=placement.hosts,
        checkout=placement.checkout or str(ROOT),
        key="00",
        limit_s=ASK_LIMIT_S,
        weights=weights if (ROOT / weights).is_file() else "",
    )


def _contained(run: Job) -> Contained | None:
    """None for a run without a container, and as long as its image isn't made."""
    made = ROOT / run.inputs["environment"]
    if not run.container or not made.is_file():
        return None
    return Contained(Image.of(Manifest.read(made)), run.container)


def table(heard: Heard) -> str:
    """A line for every node, one that doesn't answer too."""
    rows = [[name, *in_a_line(seen, heard.skew_s[name])] for name, seen in heard.answers.items()]
    rows += [[name, "no answer"] for name in heard.silent]
    headers = ["node", *HEADERS]
    return str(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))


def _found(
    agents: Agents, heard: Heard, placement: Placement, clocks: Mapping[str, Clock | None]
) -> Iterator[Finding]:
    for why in heard.silent.values():
        yield Finding("fail", "nodes", why)
    for one in complaints(heard.answers, heard.skew_s, Version.of(ROOT).commit):
        yield Finding("fail" if one.fatal else "warn", "nodes", one.text)
    names, lacking = agents.chosen(heard.answers)
    if lacking:
        yield Finding("fail", "nodes", lacking)
    for name, seen in heard.answers.items():
        if seen.image is False:
            yield Finding("warn", "nodes", f"{name}: the image is missing; a run sends it once")
        if None in seen.weights.values():
            says = f"{name}: the weights are missing; a run sends them once"
            yield Finding("warn", "nodes", says)
        for kind in placement.kinds:
            if not unfit(kind.accelerator, kind.modes, seen.accelerators):
                yield from _clocks(name, seen.accelerators, clocks)
                break
    if names and not heard.silent:
        yield Finding("ok", "nodes", f"{len(names)} answer and have what the plan needs")


def _clocks(
    name: str, found: Sequence[Accelerator], clocks: Mapping[str, Clock | None]
) -> Iterator[Finding]:
    for point, clock in clocks.items():
        now = {clock_of(one, clock) for one in found}
        if now != {wanted_clock(clock)}:
            says = f"{name}: {' and '.join(sorted(now))}; submitted with {wanted_clock(clock)}"
            yield Finding("warn", f"clocks, {point}", says)


def _reached(agents: Agents, heard: Heard, placement: Placement) -> Iterator[Finding]:
    """Whether each node reaches a socket of this machine, as LoadGen's process will have one."""
    host = address(placement.cluster, [seen.peer for seen in heard.answers.values()])
    door = Door(host, b"", 0)
    try:
        counts = dict.fromkeys(heard.answers, 0)
        for name, why in agents.begun(counts, host or platform.node(), door.port).items():
            yield Finding("fail", "nodes", f"{name}: {why}")
    finally:
        door.close()
