"""A plan on Slurm: snakemake submits its jobs, and this module reports on them. Snakemake itself is
silent (its profile), asks for states less and less often, and waits without limit for a node and,
if Slurm doesn't answer for a while, for jobs that it has lost. So this module watches its queue.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from steps.base import processes
from steps.base.console import GO_ON, say
from steps.base.errors import UserError
from steps.config.scheduler import Slurm
from steps.machine.probes.losses import Losses
from steps.plan.due import wanted
from steps.plan.plan import Job, Plan, load
from steps.schedule.environment import make
from steps.schedule.resources import systems_of
from steps.schedule.slurm import (
    Entry,
    SilenceError,
    ask,
    check,
    comment,
    prefix_of,
    queue,
    status_command,
)
from steps.schedule.supervisor import supervise
from steps.schedule.waiting import SAID_FIRST_S

POLL_S = 10.0
COMPLETING = "COMPLETING"
PREEMPTED = "PREEMPTED"

QUIET_S = 60.0
"""How long nothing may go on before only preempted jobs are left to wait for: snakemake may be
about to submit another one."""

NOTICED_S = 300.0
"""How long snakemake may take to notice a job's end, and to find its files: its plugin asks for
states at most 180 s apart, and the profile's latency-wait is 120."""

LOGS = Path("results/logs/slurm")


def run(path: Path, passed_on: list[str], root: Path) -> int:
    """Run a frozen plan; returns snakemake's exit status.

    Raises UserError before anything is submitted for what would never start.
    """
    plan = load(path)
    scheduler = plan.scheduler
    assert isinstance(scheduler, Slurm)
    home = make(scheduler.name, root)
    command = [
        *(str(home / "bin/snakemake"), "--configfile", str(path.relative_to(root))),
        *("--workflow-profile", f"workflow/profiles/{scheduler.name}", *passed_on),
    ]
    prefix = prefix_of(root / "results")
    try:
        asked = asked_for(plan, passed_on)
        status = status_command()
        check(plan, scheduler, [job for job in asked if not made(root, job)], status)
        _finish_earlier(prefix, scheduler)
    except SilenceError as error:
        raise UserError(f"Slurm doesn't answer ({error}); nothing was started") from error
    systems = ",".join(systems_of(asked, plan))
    options = ["--config", f"systems={systems}"] if systems else []
    options += ["--slurm-jobname-prefix", prefix, "--slurm-status-command", status]
    # The plugin can't say --mem=0, all memory of the node; what it says goes before this.
    environment = {**os.environ, "SBATCH_MEM_PER_NODE": "0"}
    watch = Watch(plan, scheduler, root, prefix)
    words = [*command, *options]
    return supervise(words, root, plan.stop_limit_s, environment=environment, queue=watch)


def asked_for(plan: Plan, passed_on: Sequence[str]) -> list[Job]:
    """The jobs that Snakemake is asked for: those of the outputs that are named, else all."""
    named = wanted(plan, passed_on)
    return [job for job in plan.jobs if not named or job.output in named]


def made(root: Path, job: Job) -> bool:
    return (root / job.output).exists()


@dataclass
class Watch:
    """The states of the run's jobs in Slurm: a supervisor's Queue."""

    plan: Plan
    scheduler: Slurm
    root: Path
    prefix: str
    clock: Callable[[], float] = time.monotonic
    _jobs: Mapping[str, Job] = field(init=False)
    _known: dict[str, Entry] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)
    _mention: dict[str, float] = field(default_factory=dict)
    _given_up: set[str] = field(default_factory=set)
    _unsaid: set[str] = field(default_factory=set)
    _looked: float | None = None

    def __post_init__(self) -> None:
        self._jobs = {comment(job, self.plan.experiment): job for job in self.plan.jobs}
        self._heard = self._busy = self.clock()
        self._earlier = {entry.number for entry in self._entries()}

    def look(self, snakemake: int, last: bool = False) -> str | None:
        """Report changes; returns why waiting is in vain, if it is."""
        now = self.clock()
        if not last and self._looked is not None and now - self._looked < POLL_S:
            return None
        self._looked = now
        limit_s = self.scheduler.silence_limit_min * 60
        lost = Losses()
        try:
            entries = queue(self.prefix, lost)
        except SilenceError as error:
            if now - self._heard < limit_s:
                return None
            return (
                f"Slurm hasn't answered for {self.scheduler.silence_limit_min} min ({error}); what "
                f"runs there goes on, and once Slurm is back, {GO_ON}"
            )
        self._heard = now
        for loss in sorted({str(loss) for loss in lost.counts} - self._unsaid):
            self._unsaid.add(loss)
            say(f"{loss}; the job is still followed")
        entries = [entry for entry in entries if entry.number not in self._earlier]
        for entry in entries:
            self._follow(entry, now)
        # A node that is gone may leave a job completing for ever.
        going = [entry for entry in entries if entry.active and entry.state != COMPLETING]
        if going or processes.children(snakemake):
            self._busy = now
        if now - self._busy >= limit_s:
            return (
                f"snakemake has waited for {self.scheduler.silence_limit_min} min for jobs that "
                f"Slurm no longer runs; {GO_ON}"
            )
        if now - self._busy >= QUIET_S and self._only_preempted(entries, now):
            return f"nothing is left to wait for but jobs that others were preferred to; {GO_ON}"
        return None

    def _only_preempted(self, entries: Sequence[Entry], now: float) -> bool:
        """Whether snakemake waits for preempted jobs alone. It expects Slurm to start them again,
        which its profile asks Slurm not to do."""
        others = [entry for entry in entries if entry.state != PREEMPTED]
        return len(others) < len(entries) and all(
            now - self._since[entry.number] >= NOTICED_S for entry in others
        )

    def cancel(self) -> str:
        """Cancel what is in the queue; returns a sentence about it, "" if nothing was there."""
        numbers = [entry.number for entry in self._entries() if entry.active]
        numbers = [number for number in numbers if number not in self._earlier]
        if not numbers:
            return ""
        return self._cancel(numbers)

    def _cancel(self, numbers: list[str]) -> str:
        try:
            ask("scancel", *numbers)
        except SilenceError as error:
            return f"Slurm didn't cancel jobs {', '.join(numbers)} ({error}), so they go on"
        return f"Slurm's jobs {', '.join(numbers)} were cancelled"

    def _entries(self) -> list[Entry]:
        try:
            return queue(self.prefix)
        except SilenceError:
            return list(self._known.values())

    def _follow(self, entry: Entry, now: float) -> None:
        known = self._known.get(entry.number)
        self._known[entry.number] = entry
        label = self._label(entry)
        if known is None or known.state != entry.state:
            self._since[entry.number] = now
            if entry.state == "RUNNING":
                say(f"{label}: runs on {entry.nodes} (Slurm job {entry.number})")
            if not entry.active and (known is None or known.active):
                self._end(entry, known, label)
        if entry.waiting:
            self._wait(entry, label, now)

    def _wait(self, entry: Entry, label: str, now: float) -> None:
        waited = now - self._since[entry.number]
        if waited >= self.scheduler.pending_limit_min * 60:
            if entry.number not in self._given_up:
                self._given_up.add(entry.number)
                self._fail(
                    f"{label}: no node for {self.scheduler.pending_limit_min} min (Slurm job "
                    f"{entry.number} says {entry.reason}), which is scheduler.pending_limit_min; "
                    f"it was cancelled; {GO_ON}"
                )
                self._cancel([entry.number])
            return
        if waited >= self._mention.get(entry.number, SAID_FIRST_S):
            self._mention[entry.number] = 2 * waited
            say(
                f"{label}: has waited for a node for {waited / 60:.0f} min (Slurm job "
                f"{entry.number} says {entry.reason})"
            )

    def _end(self, entry: Entry, known: Entry | None, label: str) -> None:
        where = f"Slurm job {entry.number}"
        if nodes := entry.nodes or (known.nodes if known else ""):
            where += f" on {nodes}"
        step = label.split()[0]
        if entry.state == "COMPLETED":
            say(self._line(entry, f"{step}: ") or f"{label}: done ({where})")
            return
        if entry.number in self._given_up:
            return
        if entry.state == "FAILED" and (line := self._line(entry, "error: ")):
            self._fail(f"{line.removeprefix('error: ')} ({where})")
            return
        log = _log(entry)
        words = {
            "NODE_FAIL": f"its node vanished ({where}); nothing of this job was kept; {GO_ON}",
            "TIMEOUT": f"it ran into its limit ({where}); raise scheduler.time.allowance_min; "
            f"{GO_ON}",
            "OUT_OF_MEMORY": f"it needed more memory than it had ({where}); a job that shares a "
            f"node has scheduler.share.memory_gb; {GO_ON}",
            "CANCELLED": f"somebody cancelled it ({where}); {GO_ON}",
            PREEMPTED: f"others were preferred to it ({where}); {GO_ON}",
        }
        self._fail(f"{label}: {words.get(entry.state, f'{entry.state} ({where}); see {log}')}")

    def _fail(self, text: str) -> None:
        say(f"error: {text}")

    def _label(self, entry: Entry) -> str:
        job = self._jobs.get(entry.comment)
        return f"{job.step} {job.key}" if job else entry.comment

    def _line(self, entry: Entry, start: str) -> str | None:
        """The last line of the job's output with this start: the step's own message."""
        try:
            text = (self.root / _log(entry)).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        found = [line for line in text.splitlines() if line.startswith(start)]
        return found[-1] if found else None


def _log(entry: Entry) -> Path:
    """The job's log as the plugin names it."""
    rule, _, wildcards = entry.comment.removeprefix("rule_").partition("_wildcards_")
    number = entry.number.partition("+")[0]
    return LOGS / f"rule_{rule}" / wildcards / f"{number}.log"


def _finish_earlier(prefix: str, scheduler: Slurm) -> None:
    """What a killed ./reproduce left in the queue: waiting jobs are cancelled, running ones are
    waited for. They write the results that this one would make, and those stay valid.
    """
    heard = going = time.monotonic()
    left, said = list[Entry](), set[str]()
    while True:
        now = time.monotonic()
        try:
            left = [entry for entry in queue(prefix) if entry.active]
            if waiting := [entry.number for entry in left if entry.waiting]:
                ask("scancel", *waiting)
            heard = now
        except SilenceError:
            if not said or now - heard > scheduler.silence_limit_min * 60:
                raise
        if any(entry.state != COMPLETING for entry in left):
            going = now
        if not left or now - going > scheduler.silence_limit_min * 60:
            return
        running = {entry.number for entry in left} - said
        if running:
            said |= running
            numbers = " ".join(sorted(said))
            say(
                f"an earlier ./reproduce left jobs {numbers} in Slurm; waiting for them, as their "
                f"results stay valid (to end them: scancel {numbers})"
            )
        time.sleep(POLL_S / 5)
