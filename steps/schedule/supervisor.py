"""`./reproduce` beside snakemake: one at a time, ended in time, and every death reported. Its
processes have a mark in their environment, by which the next ./reproduce finds the remains of one
that was killed or stopped.
"""

import base64
import binascii
import contextlib
import fcntl
import os
import platform
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from steps.base import processes
from steps.base.console import GO_ON, say
from steps.base.errors import UserError
from steps.base.processes import ENDS, STOPPED_S
from steps.plan.frozen import refuse_broken_link
from steps.schedule import scratch

MARK = "REPRISE_RUN"

SLURM_JOB = "SLURM_JOB_ID"
"""sbatch hands the mark on to the jobs that are submitted, and this one tells them apart: they
outlive ./reproduce, and the next one waits for them (steps/schedule/slurm_run.py).
"""

INCOMPLETE = Path(".snakemake/incomplete")
"""Snakemake has a file there for every output whose job has begun and not ended."""

POLL_S = 1.0
GROUP_S = 2.0
"""How long to check whether our children got a SIGINT too."""
LEAVE_S = 5.0
"""How long snakemake may take to end after the last step."""
STEPS_S = 70.0
"""How long steps may take to end after SIGTERM, unless the plan's containers have longer."""
REMOVE_S = 10.0
"""How long a container may take to be gone once it has ended or been killed."""
KILL_S = 10.0
"""How long the kernel may take to end a killed process; a driver may hold it longer."""

SENT_BY_TERMINAL = 0x80
"""SI_KERNEL: Ctrl-C, which the whole group got."""

SHOWN = 3


# ---- one at a time -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Holder:
    """Who wrote the lock file: the process's identity and machine; `since`: when. `slurm_job`: the
    job of Slurm that it ran in; "" if it ran in none.
    """

    mark: str
    host: str
    since: float
    slurm_job: str = ""

    @classmethod
    def read(cls, descriptor: int) -> "Holder | None":
        """None if it ended normally, or is of a version that wrote only its number."""
        words = os.pread(descriptor, 512, 0).decode(errors="replace").split()
        if len(words) not in (2, 3) or "-" not in words[0]:
            return None
        return cls(words[0], words[1], os.fstat(descriptor).st_mtime, "".join(words[2:]))

    @property
    def pid(self) -> int:
        return int(self.mark.partition("-")[0])

    @property
    def here(self) -> bool:
        return self.host == platform.node()

    @property
    def alive(self) -> bool:
        return processes.identity(self.pid) == self.mark

    @property
    def stopped(self) -> bool:
        return self.alive and processes.state(self.pid) == processes.STOPPED


_held: int | None = None


def lock(root: Path) -> None:
    """Held until this process and its heirs end. Reports what an earlier ./reproduce, killed or
    stopped, has interrupted, and ends its remains. Raises UserError if one runs.
    """
    global _held
    results = root / "results"
    refuse_broken_link(results)
    results.mkdir(parents=True, exist_ok=True)
    path = results / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    earlier = Holder.read(descriptor)
    if not _taken(descriptor, results):
        if earlier is None or not earlier.here or (earlier.alive and not earlier.stopped):
            raise UserError(_runs(descriptor, earlier, results))
        _clear(earlier, root)
        limit = time.monotonic() + KILL_S
        while not _taken(descriptor, results):
            if time.monotonic() > limit:
                raise UserError(_runs(descriptor, earlier, results))
            time.sleep(processes.GONE_POLL_S)
    elif earlier is not None:
        _clear(earlier, root)
    mark = processes.identity(os.getpid())
    os.truncate(descriptor, 0)
    job = os.environ.get(SLURM_JOB, "")
    os.pwrite(descriptor, f"{mark} {platform.node()} {job}\n".encode(), 0)
    os.set_inheritable(descriptor, True)
    os.environ[MARK] = mark
    _held = descriptor


def release() -> None:
    """Note that the run has ended normally: the next one reports nothing about it."""
    if _held is not None:
        with contextlib.suppress(OSError):
            os.truncate(_held, 0)


def _taken(descriptor: int, results: Path) -> bool:
    """Raises UserError if files can't be locked there: NFS without locks, Lustre without flock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"{results} lies on {_file_system(results)}, which locks no files ({error.strerror}), "
            "and two ./reproduce would write over each other; make results a link to a directory "
            "of another file system, or mount this one with locks (Lustre: -o flock, NFS: without "
            "nolock)"
        ) from error
    return True


def _file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """A phrase with its type and mount point."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "a file system"
    real = path.resolve()
    above = [(where, kind) for _, where, kind, *_ in lines if real.is_relative_to(where)]
    if not above:
        return "a file system"
    where, kind = max(above, key=lambda found: len(found[0]))
    return f"{where} ({kind})"


def _runs(descriptor: int, earlier: Holder | None, results: Path) -> str:
    number = os.pread(descriptor, 32, 0).decode(errors="replace").split("-")[0].strip()
    where = f" on {earlier.host}" if earlier is not None and not earlier.here else ""
    return (
        f"another ./reproduce (process {number}{where}), or a step it started, is still running "
        f"in {results}; wait for it or end it"
    )


def _clear(earlier: Holder, root: Path) -> None:
    """End the remains of an earlier run, and report what it was doing."""
    what = "was stopped and is ended now" if earlier.here and earlier.stopped else "was killed"
    if earlier.here:
        left = processes.killed(_marked(earlier.mark, earlier.slurm_job), KILL_S)
        if earlier.alive:
            left += processes.killed([earlier.pid], KILL_S)
        if left:
            numbers = " ".join(map(str, left))
            raise UserError(
                f"the last ./reproduce (process {earlier.pid}) {what}, but of the processes it "
                f"started {numbers} don't end, even when killed: a driver holds them; see "
                "dmesg, restart the machine if nothing else helps, and run again"
            )
        scratch.remove(earlier.mark)
    say(
        f"the last ./reproduce (process {earlier.pid}) {what}; "
        f"{_listed(cut_short(root, earlier.since))}; going on from what is finished"
    )


def _marked(mark: str, slurm_job: str) -> list[int]:
    """The processes of a ./reproduce that ran in this job of Slurm or in none, without those of
    jobs that it submitted.
    """
    found = processes.with_variable(MARK, mark)
    return [pid for pid in found if processes.variable(pid, SLURM_JOB) in ("", slurm_job)]


def cut_short(root: Path, since: float) -> list[str]:
    """Output directories of jobs that began after a time and haven't ended."""
    found = []
    for path in (root / INCOMPLETE).rglob("*"):
        try:
            if path.is_file() and path.stat().st_mtime >= since:
                name = str(path.relative_to(root / INCOMPLETE)).replace("/", "").replace("@", "")
                output = base64.urlsafe_b64decode(name).decode()
                found.append((path.stat().st_mtime, str(Path(output).parent)))
        except (OSError, binascii.Error, UnicodeDecodeError):
            continue
    return [output for _, output in sorted(found)]


def _listed(outputs: list[str]) -> str:
    if not outputs:
        return "no step was under way"
    more = f" and {len(outputs) - SHOWN} more" if len(outputs) > SHOWN else ""
    return f"cut short: {', '.join(outputs[:SHOWN])}{more}"


# ---- beside snakemake --------------------------------------------------------------------------


class Queue(Protocol):
    """Where snakemake's jobs wait and run if that is elsewhere."""

    def look(self, snakemake: int, last: bool = False) -> str | None:
        """Report changes; returns why waiting is in vain, if it is. Called every second."""

    def cancel(self) -> str:
        """Take our jobs out of it; returns a sentence about it, "" if none was there."""


def supervise(
    command: list[str],
    root: Path,
    stop_limit_s: float,
    name: str = "snakemake",
    environment: Mapping[str, str] | None = None,
    queue: Queue | None = None,
) -> int:
    """Run snakemake, or what `name` says; returns its exit status, or 128 and a signal's number.

    `stop_limit_s`: how long the plan's containers may take to end. Raises UserError with what
    `queue` says if waiting for its jobs is in vain.

    Signals that end us are handled here, because its own handler may deadlock on a lock of the
    thread that it interrupts.
    """
    waited = {signal.SIGCHLD, *ENDS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)

    def begin() -> None:
        processes.die_with_parent()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    begun = time.time()
    try:
        # What runs elsewhere has no folder of this machine.
        mark = processes.identity(os.getpid())
        given = os.environ if environment is None else environment
        with contextlib.nullcontext(given) if queue else scratch.environment(mark, given) as env:
            # The lock is an open file that is handed on.
            child = subprocess.Popen(command, cwd=root, env=env, close_fds=False, preexec_fn=begin)
            try:
                steps_s = max(STEPS_S, stop_limit_s + REMOVE_S)
                return _Watch(child, root, begun, waited, steps_s, name, queue).status()
            finally:
                _end_all(child)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_all(child: "subprocess.Popen[bytes]") -> None:
    """However we leave, nothing of the run goes on."""
    if child.poll() is None:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(KILL_S)
    left = _marked(os.environ.get(MARK, ""), os.environ.get(SLURM_JOB, ""))
    left = processes.killed([pid for pid in left if pid != os.getpid()], KILL_S)
    if left:
        numbers = " ".join(map(str, left))
        say(f"error: processes {numbers} don't end, even when killed: a driver holds them (dmesg)")


@dataclass
class _Watch:
    child: "subprocess.Popen[bytes]"
    root: Path
    begun: float
    waited: set[signal.Signals]
    steps_s: float
    name: str
    queue: Queue | None
    _stopped: dict[int, float] = field(default_factory=dict)

    def status(self) -> int:
        while self.child.poll() is None:
            found = self._signalled(POLL_S)
            if found is not None:
                return self._ended_by(found)
            if (status := self._look()) is not None:
                return status
            if self.queue and (reason := self.queue.look(self.child.pid)) is not None:
                raise UserError(reason)
        if self.queue:
            self.queue.look(self.child.pid, last=True)
        status = self.child.returncode
        if status >= 0:
            return status
        number = signal.Signals(-status).name
        cut = _listed(cut_short(self.root, self.begun))
        say(f"error: {self.name} (process {self.child.pid}) was ended by {number}; {cut}; {GO_ON}")
        return 128 - status

    def _signalled(self, limit_s: float) -> signal.struct_siginfo | None:
        found = signal.sigtimedwait(self.waited, limit_s)
        return None if found is None or found.si_signo == signal.SIGCHLD else found

    def _look(self) -> int | None:
        """End what has been stopped for too long; a status if that is snakemake itself."""
        now = time.monotonic()
        watched = [self.child.pid, *self._steps()]
        stopped = [pid for pid in watched if processes.state(pid) == processes.STOPPED]
        self._stopped = {pid: self._stopped.get(pid, now) for pid in stopped}
        late = [pid for pid, since in self._stopped.items() if now - since >= STOPPED_S]
        for pid in late:
            if pid == self.child.pid:
                cut = _listed(cut_short(self.root, self.begun))
                say(
                    f"error: {self.name} (process {pid}) has been stopped for {STOPPED_S:.0f} s "
                    f"(SIGSTOP) and is ended; {cut}; {GO_ON}"
                )
                return 128 + signal.SIGSTOP
            say(
                f"error: {_label(pid)} has been stopped for {STOPPED_S:.0f} s (SIGSTOP) and is "
                "ended: what a run measures while it is stopped is void"
            )
            processes.killed([pid], KILL_S)
        return None

    def _ended_by(self, found: signal.struct_siginfo) -> int:
        """End steps, then snakemake, each with a limit; a second signal ends all at once."""
        number, cut = signal.Signals(found.si_signo), cut_short(self.root, self.begun)
        sender = processes.name(found.si_pid)
        by = f"{number.name} from process {found.si_pid} ({sender})" if sender else number.name
        told = number == signal.SIGINT and found.si_code == SENT_BY_TERMINAL
        cancelled = [self._cancelled()]
        begun = alone = time.monotonic()
        while self.child.poll() is None:
            now = time.monotonic()
            # A SIGINT may have gone to the whole group, and snakemake takes one only.
            if not told and (number != signal.SIGINT or now - begun > GROUP_S):
                told = True
                self._tell(self.child.pid, signal.SIGINT)  # not SIGTERM: see supervise
                for pid in self._steps():
                    self._tell(pid, signal.SIGTERM)
            if self._signalled(0.1) is not None:
                break
            if self._steps():
                alone = now
            if now - alone > LEAVE_S or now - begun > self.steps_s:
                break
        cancelled.append(self._cancelled())  # what was submitted meanwhile
        say("; ".join(filter(None, [f"error: ended by {by}", _listed(cut), *cancelled, GO_ON])))
        return 128 + number

    def _cancelled(self) -> str:
        return self.queue.cancel() if self.queue else ""

    def _steps(self) -> list[int]:
        found = processes.children(self.child.pid)
        return [pid for pid in found if processes.state(pid) not in processes.GONE]

    def _tell(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _label(pid: int) -> str:
    """A step's name and output."""
    words = processes.command(pid)
    output = next((after for word, after in pairwise(words) if word == "--output"), "")
    step = next((word for word in words if word.startswith("steps.")), "").rpartition(".")[2]
    return f"{step}: {Path(output).parent} (process {pid})" if step and output else f"process {pid}"
