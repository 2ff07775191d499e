"""Requests to Slurm, each with a time limit, and what its answers mean for a plan."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.config.scheduler import Slurm
from steps.machine.probes.losses import Losses, text_or_none
from steps.plan.plan import Job, Plan
from steps.plan.unsupported import Missing
from steps.schedule.resources import Part, Resources, systems_of

ANSWER_LIMIT_S = 60.0
"""Slurm's own tools retry; a controller that fails over needs about half of this."""

ENDED = (
    *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("DEADLINE", "BOOT_FAIL", "PREEMPTED"),
)
"""States of a job that needs no more waiting (squeue's manual, "JOB STATE CODES")."""

DAY_MIN = 1440


class SilenceError(Exception):
    """Slurm gave no answer; the message says what it gave instead."""


def ask(*command: str) -> str:
    """The output of one of Slurm's tools. Raises UserError without the tool, SilenceError without
    an answer.
    """
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
    """The prefix of the names of a checkout's jobs, so that two checkouts keep apart."""
    return f"reprise-{hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:12]}"


FURTHER = re.compile(r"\+[1-9]\d*$")
"""The end of the number of a heterogeneous job's further parts, which go with the first, 17+0."""

COLUMNS = {"%i": "JOBID", "%T": "STATE", "%j": "NAME", "%N": "NODELIST", "%k": "COMMENT"}
REASON = {"%r": "REASON"}
"""Last, because only it is free text and may contain the separator."""


def queue(prefix: str, lost: Losses | None = None) -> list[Entry]:
    """Jobs of this checkout, ended ones too, as long as Slurm remembers them.

    `lost` notes fields that squeue doesn't report of a job; the job is kept.
    """
    columns = {**COLUMNS, **REASON}
    form = "|".join(columns)
    text = ask("squeue", "--noheader", "--me", "--states=all", f"--format={form}")
    return entries(text, prefix, lost or Losses())


def entries(text: str, prefix: str, lost: Losses) -> list[Entry]:
    lost.tool = "squeue"
    titles = [*COLUMNS.values(), *REASON.values()]
    own = [row for row in rows(text, titles) if row["NAME"].startswith(prefix)]
    return [_entry(row, lost) for row in own if not FURTHER.search(row["JOBID"])]


def rows(text: str, titles: list[str]) -> list[dict[str, str]]:
    """Lines of a table with separators; the last column takes the rest, a missing one is ""."""
    lines = [line.split("|", len(titles) - 1) for line in text.splitlines() if "|" in line]
    return [
        dict(zip(titles, [*(cell.strip() for cell in line), *[""] * len(titles)], strict=False))
        for line in lines
    ]


def _entry(row: Mapping[str, str], lost: Losses) -> Entry:
    forms = {"JOBID": r"\d+\S*", "STATE": r"[A-Z_]+", "COMMENT": r"\S+", "REASON": r".+"}
    for title, form in forms.items():
        if not re.fullmatch(form, row[title]):
            lost.lose(f"{title} of job {row['JOBID'] or row['NAME']}", "it", row[title])
    return Entry(
        number=row["JOBID"],
        state=row["STATE"],
        name=row["NAME"],
        reason=row["REASON"],
        nodes=row["NODELIST"],
        comment=row["COMMENT"],
    )


def comment(job: Job, experiment: str) -> str:
    """The plugin's comment beside a job's name: its rule and wildcards."""
    artifacts = f"results/artifacts/{job.step}/"
    name = job.output.removeprefix(artifacts).removesuffix("/manifest.json")
    wildcards = name if job.output.startswith(artifacts) else f"{experiment}_{job.key}"
    return f"rule_{job.step}_wildcards_{wildcards}".replace("/", "_")


# ---- before anything is submitted --------------------------------------------------------------


Node = Mapping[str, int] | None
"""Its accelerators: numbers by type. None: sinfo's form is unknown."""


def status_command() -> str:
    """The plugin's command for states: without accounting, sacct knows nothing."""
    return "sacct" if has_accounting(ask("scontrol", "show", "config")) else "squeue"


def has_accounting(configured: str) -> bool:
    """From `scontrol show config`: without, accounting_storage/none, and since 23.11 (null)."""
    found = re.search(r"^\s*AccountingStorageType\s*=[ \t]*(\S*)", configured, re.MULTILINE)
    kind = text_or_none(found[1]) if found else None
    return kind is not None and kind.rpartition("/")[2].lower() != "none"


def check(plan: Plan, scheduler: Slurm, due: Iterable[Job], followed_by: str) -> None:
    """Raises UserError for what would never start: no such partition, nodes, accelerators, time.

    Nodes that are down or busy don't count: they may come back. `followed_by`: the plugin's
    command for states.
    """
    partition, due = Partition.of(scheduler), list(due)
    resources = Resources(plan, systems_of(due, plan))
    for job in due:
        if len(resources.parts(job)) > 1 and followed_by == "squeue":
            raise UserError(
                f"{job.step} {job.key} asks for nodes that don't have the same in one "
                "heterogeneous job, and without Slurm's accounting (AccountingStorageType) "
                "Snakemake can't follow one; name the nodes in cluster.hosts, with scheduler=local"
            )
        if why := partition.refuses(job, resources):
            raise UserError(why)


@dataclass(frozen=True)
class Partition:
    """What sinfo says of one. `limit_min`: after which it ends jobs; None: never."""

    name: str
    limit_min: int | None
    nodes: list[Node]

    @classmethod
    def of(cls, scheduler: Slurm) -> "Partition":
        """Raises UserError without it, SilenceError without an answer."""
        lost = Losses()
        found = partition(
            ask("sinfo", "--noheader", "-N", "--format=%P|%l|%G|%N"), scheduler.partition, lost
        )
        for loss in lost.counts:
            print(f"{loss}: {loss.field}", file=sys.stderr)
        return cls(*found)

    def refuses(self, job: Job, resources: Resources) -> str:
        """Why a job with these resources would never start here; "" if it would."""
        asked = resources.of(job)
        if not asked:
            return ""
        what = f"{job.step} {job.key}"
        if self.limit_min is not None and int(asked["runtime"]) > self.limit_min:
            return (
                f"{what} may take {asked['runtime']} min, but partition {self.name} ends jobs "
                f"after {self.limit_min}; choose another scheduler.partition, or lower "
                "scheduler.time"
            )
        parts = resources.parts(job) or [Part(1, None, 0)]
        return next(filter(None, (self._lacks(what, part) for part in parts)), "")

    def _lacks(self, what: str, part: Part) -> str:
        wanted, kind, count = part.nodes, part.kind or "", part.accelerators
        fitting = [node for node in self.nodes if node is None or _number(node, kind) >= count]
        if len(fitting) >= wanted:
            return ""
        known = [node for node in self.nodes if node is not None]
        counted = {(kind or "no type", number) for node in known for kind, number in node.items()}
        there = [f"{number} × {kind}" for kind, number in sorted(counted)]
        having = f" with {count} × {kind or 'any accelerator'}" if count else ""
        return (
            f"{what} needs {wanted} node{'s' if wanted > 1 else ''}{having}, and partition "
            f"{self.name} has {len(fitting)} (of {len(self.nodes)}; accelerators there: "
            f"{', '.join(there) or 'none'}); choose another scheduler.partition, or say in "
            "scheduler.gpu_types what Slurm calls them"
        )


def missing(plan: Plan, scheduler: Slurm) -> Missing:
    """Why the partition would never start a cell's jobs, asked before anything is submitted. Raises
    UserError if Slurm doesn't answer.
    """
    try:
        there = Partition.of(scheduler)
    except SilenceError as error:
        raise UserError(f"Slurm doesn't answer ({error}); nothing was started") from error
    jobs = {job.output: job for job in plan.jobs}

    def why(needed: Mapping[str, Any], due: Sequence[Mapping[str, Any]]) -> str:
        resources = Resources(plan, [needed["system"]])
        refusals = (there.refuses(jobs[one["output"]], resources) for one in due)
        return next(filter(None, refusals), "")

    return why


def _number(node: Mapping[str, int], kind: str) -> int:
    return node.get(kind, 0) if kind else sum(node.values())


def partition(text: str, wanted: str | None, lost: Losses) -> tuple[str, int | None, list[Node]]:
    """From sinfo's output, the name, limit in minutes (None: none) and nodes of a partition (None:
    Slurm's default). Values in an unknown form aren't checked. Raises UserError without it.
    """
    lost.tool = "sinfo"
    lines = rows(text, ["PARTITION", "TIMELIMIT", "GRES", "NODELIST"])
    there = sorted({line["PARTITION"].rstrip("*") for line in lines})
    defaults = (line["PARTITION"] for line in lines if line["PARTITION"].endswith("*"))
    name = wanted or next(defaults, "").rstrip("*")
    if not name:
        raise UserError(
            f"Slurm has no default partition; set scheduler.partition to one of {', '.join(there)}"
        )
    own = [line for line in lines if line["PARTITION"].rstrip("*") == name]
    if not own:
        raise UserError(
            f"Slurm has no partition {name}; set scheduler.partition to one of {', '.join(there)}"
        )
    return name, _limit(own[0]["TIMELIMIT"], lost), [_gres(line, lost) for line in own]


def _limit(said: str, lost: Losses) -> int | None:
    try:
        return minutes(said)
    except ValueError:
        lost.lose("TIMELIMIT", "whether jobs fit into it isn't checked", said)
        return None


def _gres(line: Mapping[str, str], lost: Losses) -> Node:
    found = accelerators(line["GRES"])
    if not found and ("gpu" in line["GRES"] or not line["GRES"]):
        where = f"GRES of {line['NODELIST'] or 'a node'}"
        lost.lose(where, "whether its accelerators are enough isn't checked", line["GRES"])
        return None
    return found


def accelerators(gres: str) -> dict[str, int]:
    """Numbers by type, of a node's Gres: "gpu:mi300x:8(S:0-1),nvme:2"; "(null)" is no type."""
    plain = gres.replace(":(null):", ":").replace(":no_consume:", ":")
    found = re.findall(r"\bgpu(?::([A-Za-z0-9_.-]+?))?:(\d{1,6})(?![\w.])", plain)
    counted: dict[str, int] = {}
    for kind, count in found:
        counted[kind] = counted.get(kind, 0) + int(count)
    return counted


def minutes(limit: str) -> int | None:
    """A limit as sinfo writes it, days-hours:minutes:seconds from the right; None: no limit.

    Raises ValueError for anything else.
    """
    if limit.lower() in ("infinite", "unlimited", "n/a"):
        return None
    if not re.fullmatch(r"(\d{1,6}-\d+(:\d+){0,2}|\d{1,6}(:\d+){1,2})", limit):
        raise ValueError(limit)
    days, _, rest = limit.rpartition("-")
    rest += ":00" * (2 - rest.count(":")) if days else ""
    parts = [int(part) for part in rest.split(":")]
    parts = [0] * (3 - len(parts)) + parts
    return int(days or 0) * DAY_MIN + parts[0] * 60 + parts[1] + (parts[2] > 0)
