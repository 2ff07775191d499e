"""Questions to Slurm, each with a limit, and what its answers mean for a plan."""

import hashlib
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError
from steps.config.scheduler import Slurm
from steps.plan.plan import Job, Plan
from steps.schedule.resources import Resources

ANSWER_LIMIT_S = 60.0
"""Slurm's own tools retry; a controller that fails over needs about half of this."""

ENDED = (
    *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("DEADLINE", "BOOT_FAIL", "PREEMPTED"),
)
"""States of a job that needs no more waiting (squeue's manual, "JOB STATE CODES")."""

DAY_MIN = 1440


class SilenceError(Exception):
    """Slurm gave no answer; its message says what it gave instead."""


def ask(*command: str) -> str:
    """What one of Slurm's tools prints. Raises UserError without the tool, SilenceError without an
    answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_LIMIT_S)
    except FileNotFoundError as error:
        raise UserError(
            f"there is no {command[0]} here: start ./reproduce where jobs are submitted to Slurm, "
            "or choose scheduler=local"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SilenceError(f"{command[0]}: no answer within {ANSWER_LIMIT_S:.0f} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise SilenceError(f"{command[0]}: {last}")
    return done.stdout


@dataclass(frozen=True)
class Entry:
    """A job in Slurm's queue; `reason`: why it waits; `comment`: which job of the plan it is."""

    number: str
    state: str
    name: str
    reason: str
    nodes: str
    comment: str

    @property
    def active(self) -> bool:
        return self.state not in ENDED

    @property
    def waiting(self) -> bool:
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


def prefix_of(results: Path) -> str:
    """What the names of a checkout's jobs start with: two checkouts don't take each other's."""
    return f"reprise-{hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:12]}"


def queue(prefix: str) -> list[Entry]:
    """Jobs of this checkout, ended ones too, as long as Slurm remembers them."""
    form = "%i|%T|%j|%r|%N|%k"
    lines = ask("squeue", "--noheader", "--me", "--states=all", f"--format={form}").splitlines()
    rows = [[field.strip() for field in line.split("|")] for line in lines]
    return [Entry(*row) for row in rows if len(row) == 6 and row[2].startswith(prefix)]


def comment(job: Job, experiment: str) -> str:
    """What the plugin writes beside a job's name: its rule and wildcards."""
    artifacts = f"results/artifacts/{job.step}/"
    name = job.output.removeprefix(artifacts).removesuffix("/manifest.json")
    wildcards = name if job.output.startswith(artifacts) else f"{experiment}_{job.key}"
    return f"rule_{job.step}_wildcards_{wildcards}".replace("/", "_")


# ---- before anything is submitted --------------------------------------------------------------


Node = Mapping[str, int]
"""Its accelerators: numbers by type."""


def status_command() -> str:
    """The plugin's way to ask for states: without accounting sacct knows nothing."""
    configured = ask("scontrol", "show", "config")
    found = re.search(r"^AccountingStorageType\s*=\s*(\S+)", configured, re.MULTILINE)
    return "squeue" if found is None or found[1].endswith("/none") else "sacct"


def check(plan: Plan, scheduler: Slurm, due: Iterable[Job]) -> None:
    """Raises UserError for what would wait for ever: no such partition, nodes, accelerators, time.

    Nodes that are down or busy are no reason: they may come back.
    """
    partition, limit_min, nodes = _partition(scheduler.partition)
    resources = Resources(plan)
    for job in due:
        asked = resources.of(job)
        if not asked:
            continue
        what = f"{job.step} {job.key}"
        if limit_min is not None and int(asked["runtime"]) > limit_min:
            raise UserError(
                f"{what} may take {asked['runtime']} min, but partition {partition} ends jobs "
                f"after {limit_min}; choose another scheduler.partition, or lower scheduler.time"
            )
        _find_nodes(what, asked, partition, nodes)


def _find_nodes(
    what: str, asked: Mapping[str, int | str], partition: str, nodes: list[Node]
) -> None:
    count, kind = int(asked.get("gpu", 0)), str(asked.get("gpu_model", ""))
    if "gres" in asked:
        kind, _, number = str(asked["gres"]).removeprefix("gpu:").rpartition(":")
        count = int(number)
    fitting = [node for node in nodes if _number(node, kind) >= count]
    wanted = int(asked.get("nodes", 1))
    if len(fitting) >= wanted:
        return
    counted = {(kind or "no type", number) for node in nodes for kind, number in node.items()}
    there = [f"{number} × {kind}" for kind, number in sorted(counted)]
    having = f" with {count} × {kind or 'any accelerator'}" if count else ""
    raise UserError(
        f"{what} needs {wanted} node{'s' if wanted > 1 else ''}{having}, and partition {partition} "
        f"has {len(fitting)} (of {len(nodes)}; accelerators there: {', '.join(there) or 'none'}); "
        "choose another scheduler.partition, or say in scheduler.gpu_types what Slurm calls them"
    )


def _number(node: Node, kind: str) -> int:
    return node.get(kind, 0) if kind else sum(node.values())


def _partition(wanted: str | None) -> tuple[str, int | None, list[Node]]:
    """Its name, its limit in minutes (None: none) and its nodes. Raises UserError without it."""
    lines = [
        [field.strip() for field in line.split("|")]
        for line in ask("sinfo", "--noheader", "-N", "--format=%P|%l|%G|%N").splitlines()
    ]
    there = sorted({line[0].rstrip("*") for line in lines})
    default = next((line[0].rstrip("*") for line in lines if line[0].endswith("*")), None)
    name = wanted or default
    if name is None:
        raise UserError(
            f"Slurm has no default partition; set scheduler.partition to one of {', '.join(there)}"
        )
    own = [line for line in lines if line[0].rstrip("*") == name]
    if not own:
        raise UserError(
            f"Slurm has no partition {name}; set scheduler.partition to one of {', '.join(there)}"
        )
    return name, minutes(own[0][1]), [accelerators(line[2]) for line in own]


def accelerators(gres: str) -> dict[str, int]:
    """Numbers by type, of a node's Gres: "gpu:mi300x:8(S:0-1),nvme:2"."""
    found = re.findall(r"gpu(?::([A-Za-z0-9_.-]+?))?:(\d+)(?![\w.])", gres)
    counted: dict[str, int] = {}
    for kind, count in found:
        counted[kind] = counted.get(kind, 0) + int(count)
    return counted


def minutes(limit: str) -> int | None:
    """A limit as sinfo writes it, days-hours:minutes:seconds from the right; None: no limit."""
    if limit in ("infinite", "n/a"):
        return None
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    parts = [0] * (3 - len(parts)) + parts
    return int(days or 0) * DAY_MIN + parts[0] * 60 + parts[1] + (parts[2] > 0)
