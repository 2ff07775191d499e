"""What a job requests from the scheduler, read from the plan."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from steps.config.accelerators import Modes, modes_in
from steps.config.groups import Requirement
from steps.config.scheduler import Kubernetes, Slurm
from steps.plan.estimate import computed_cost, facts_of
from steps.plan.plan import Job, Plan
from steps.plan.registry import STEPS

SHARING = tuple(name for name, spec in STEPS.items() if spec.place == "share")
"""Steps that compute for minutes without an engine: part of a node is enough for them."""

STAYING = tuple(name for name, spec in STEPS.items() if spec.place == "here")
"""Steps of the machine that `./reproduce` runs on: they install, download, judge or package."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "local": ("gpu",),
    "slurm": (
        *("gpu", "gpu_model", "gres", "nodes", "tasks", "mpi", "runtime", "cpus_per_task"),
        *("mem_mb", "slurm_partition", "slurm_account", "qos", "slurm_extra"),
    ),
    "kubernetes": ("here",),
}
"""Names of resources, by scheduler, as Snakemake's executors know them. For Kubernetes, the job's
own command makes the request (steps/schedule/kubernetes/place.py); `here` counts what this machine
does.
"""

WHOLE = -1
"""For cpus_per_task: the plugin passes no number, and the job has its whole node."""

UNNAMED = 0
"""For mem_mb: the plugin passes no number, and the default applies (steps/schedule/slurm.py)."""

REFUSALS = (r"The error message was '(.*?)'\.\n", r"Job submission failed with exception: (.*)")
"""The plugin's message about a job that Slurm refused."""

Asked = Mapping[str, int | str]


def asked_for(step: str, scheduler: str) -> tuple[str, ...]:
    """Those of NAMES that a job of the step may ask for."""
    return () if step in STAYING and scheduler != "kubernetes" else NAMES[scheduler]


def refused(message: str) -> str | None:
    """Slurm's own message in the plugin's about a failed job; None: Slurm had accepted it."""
    found = (re.search(pattern, message, re.DOTALL) for pattern in REFUSALS)
    return next((" ".join(match[1].split()) for match in found if match), None)


class Resources:
    """The resources of a plan's jobs, each computed on request.

    `here`: the systems whose nodes the scheduler has; empty: all. Weights are made on a node of one
    of these.
    """

    def __init__(self, plan: Plan, here: Iterable[str] = ()) -> None:
        self._here = frozenset(here) or {needed.system for needed in plan.requirements}
        self._scheduler = plan.scheduler
        self._requirements = {needed.system: needed for needed in plan.requirements}
        self._jobs = plan.jobs
        self._facts = facts_of(plan.jobs)
        self._asked: dict[str, Asked] = {}

    def of(self, job: Job) -> Asked:
        """Values of NAMES; an absent one isn't requested."""
        if job.output not in self._asked:
            self._asked[job.output] = self._ask(job)
        return self._asked[job.output]

    def _ask(self, job: Job) -> Asked:
        if isinstance(self._scheduler, Kubernetes):
            return {"here": 1} if job.step in (*STAYING, *SHARING) else {}
        needed = None if job.step in (*STAYING, *SHARING) else self.requirement(job)
        if not isinstance(self._scheduler, Slurm):
            return {} if needed is None else {"gpu": needed.count_per_node}
        if job.step in STAYING:
            return {}
        common = {**_where(self._scheduler), "runtime": self.limit_min(job, self._scheduler)}
        if needed is None:
            share = self._scheduler.share
            asked = {"cpus_per_task": share.cpus, "mem_mb": share.memory_gb * 1000}
            return common | asked | {"slurm_extra": _extra(self._scheduler)}
        nodes, devices = nodes_of(job, needed), modes_of(job).devices
        first, *others = self._parts(needed, nodes, devices)
        extra = _extra(self._scheduler, "--exclusive")
        if not others:
            return common | _nodes(first, extra)
        return common | _heterogeneous(first, others, self._scheduler, common["runtime"], extra)

    def parts(self, job: Job) -> list["Part"]:
        """The nodes that a job asks Slurm for, by what they have; none if it shares one."""
        if not isinstance(self._scheduler, Slurm) or job.step in (*STAYING, *SHARING):
            return []
        needed = self.requirement(job)
        return self._parts(needed, nodes_of(job, needed), modes_of(job).devices)

    def _parts(self, needed: Requirement, nodes: int, devices: int) -> list["Part"]:
        """`devices`: of each accelerator; Gres of a node in CPX mode counts partitions."""
        assert isinstance(self._scheduler, Slurm)
        kinds = needed.kinds if nodes > 1 else needed.kinds[:1]
        found: dict[tuple[str | None, int], int] = {}
        for kind in kinds:
            name = self._scheduler.gpu_types.get(kind.hardware, kind.hardware)
            has = name if kind.accelerators else None, kind.accelerators * devices
            found[has] = found.get(has, 0) + (kind.nodes if nodes > 1 else 1)
        return [Part(count, *has) for has, count in found.items()]

    def limit_min(self, job: Job, scheduler: Slurm | Kubernetes) -> int:
        """The scheduler's limit of the job, in minutes."""
        cost, time = computed_cost(job, self._facts[job.output]), scheduler.time
        if cost.seconds is None:
            return time.unknown_min
        limit = time.allowance_min + math.ceil(time.factor * cost.seconds / 60)
        return max(limit, time.unknown_min) if cost.rough else limit

    def requirement(self, job: Job) -> Requirement:
        """The engine of the job's system; for weights, that of the first system that runs them and
        has nodes here."""
        waiting, seen, elsewhere = [job], {job.output}, list[Requirement]()
        while waiting:
            at = waiting.pop(0)
            system = at.key.split("/")[0]
            if STEPS[at.step].axes[:1] == ("system",) and system in self._requirements:
                if system in self._here:
                    return self._requirements[system]
                elsewhere.append(self._requirements[system])
                continue
            users = [j for j in self._jobs if at.output in j.inputs.values()]
            waiting += [user for user in users if user.output not in seen]
            seen |= {user.output for user in users}
        return next(iter([*elsewhere, *self._requirements.values()]))


def systems_of(jobs: Iterable[Job], plan: Plan) -> list[str]:
    """The plan's systems that these jobs measure on."""
    known = {needed.system for needed in plan.requirements}
    runs = (job.key.split("/")[0] for job in jobs if STEPS[job.step].stage == "runs")
    return sorted(known.intersection(runs))


def modes_of(job: Job) -> Modes:
    """The partition modes that the job's engine runs in; whole accelerators if none are set."""
    engine = json.loads(job.config).get("engine")
    return modes_in(engine if isinstance(engine, dict) else None) or Modes()


def nodes_of(job: Job, needed: Requirement) -> int:
    """Weights are made on one node, even for a system of several."""
    return needed.nodes if STEPS[job.step].stage == "runs" else 1


def _where(scheduler: Slurm) -> dict[str, int | str]:
    given = {
        "slurm_partition": scheduler.partition,
        "slurm_account": scheduler.account,
        "qos": scheduler.qos,
    }
    return {name: value for name, value in given.items() if value is not None}


def _extra(scheduler: Slurm, *options: str) -> str:
    reserved = [f"--reservation={scheduler.reservation}"] if scheduler.reservation else []
    return " ".join([*options, *reserved])


class Part(NamedTuple):
    """So many nodes with so many accelerators each. `kind`: the type of the site's Gres; None: its
    Gres has no types, or no accelerators are needed."""

    nodes: int
    kind: str | None
    accelerators: int

    @property
    def gres(self) -> str:
        return ":".join(filter(None, (self.kind, str(self.accelerators))))


def _nodes(part: Part, extra: str) -> dict[str, int | str]:
    """Whole nodes. On several, the step itself starts the processes on the others."""
    asked: dict[str, int | str] = {"nodes": part.nodes, "cpus_per_task": WHOLE, "mem_mb": UNNAMED}
    asked["slurm_extra"] = extra
    if part.nodes > 1:
        asked |= {"mpi": "srun", "tasks": part.nodes}
        asked["slurm_extra"] = f"{extra} --ntasks-per-node=1"
        if part.accelerators:
            asked["gres"] = f"gpu:{part.gres}"
    elif part.accelerators:
        asked["gpu"] = part.accelerators
        if part.kind:
            asked["gpu_model"] = part.kind
    return asked


def _heterogeneous(
    first: Part, others: Sequence[Part], scheduler: Slurm, limit_min: int | str, extra: str
) -> dict[str, int | str]:
    """Nodes that don't have the same: a heterogeneous job, whose command runs on the first part's.

    The plugin knows no such job. What it passes on unread says the others, in sbatch's short
    options, after what it says of the first; so accelerators of all are said there, too.
    """
    asked = _nodes(first._replace(accelerators=0), extra)
    shared = {"-p": scheduler.partition, "-A": scheduler.account, "-q": scheduler.qos}
    named = [f"{option}{value}" for option, value in shared.items() if value is not None]
    words = [str(asked["slurm_extra"]), *_accelerators(first)]
    for part in others:
        words += [":", *named, f"-t{limit_min}", f"-N{part.nodes}", f"-n{part.nodes}"]
        words += [extra, "--ntasks-per-node=1", *_accelerators(part)]
    return {**asked, "slurm_extra": " ".join(words)}


def _accelerators(part: Part) -> list[str]:
    return [f"--gpus-per-node={part.gres}"] if part.accelerators else []
