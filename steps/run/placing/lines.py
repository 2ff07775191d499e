"""Connections to nodes: one process for each, whose stdin and stdout are those of the node's agent.

Over SSH with the user's configuration, keys and agent, and without questions. In a Slurm job by a
job step on the node, which Slurm ends with the job.
"""

import contextlib
import os
import queue
import re
import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from steps import ROOT
from steps.base.errors import UserError
from steps.base.strict import Strict
from steps.machine.probes.remote import UNREACHABLE, unreachable, words
from steps.run.placing.launch import SLURM

Answer = TypeVar("Answer", bound=Strict)

AGENT = "steps.run.placing.agent"
END_S = 10.0
ASK_LIMIT_S = 60.0

JOB = "SLURM_JOB_ID"
"""Slurm's variable that is sure to be there: Snakemake's plugin takes most others away, those with
the job's nodes too."""

PART = re.compile(r"\+(\d+)$")
"""The end of the number of a heterogeneous job's part."""


def over_ssh(host: str, checkout: str, *arguments: str) -> list[str]:
    """What starts an agent on a host."""
    agent = shlex.join([interpreter(), "-m", AGENT, *arguments])
    return words(host, f"cd {shlex.quote(checkout)} && exec {agent}")


def by_srun(part: int | None, node: str, *arguments: str) -> list[str]:
    """The same on a node of this job; `part`: of a heterogeneous job, None of any other."""
    group = [] if part is None else [f"--het-group={part}"]
    return [
        *("srun", *group, f"--nodelist={node}", "--nodes=1", "--ntasks=1", "--overlap"),
        *("--cpu-bind=none", "--unbuffered", sys.executable, "-m", AGENT, *arguments),
    ]


def interpreter() -> str:
    """This interpreter, relative to the checkout, which contains environments."""
    here = Path(sys.executable)
    return str(here.relative_to(ROOT)) if here.is_relative_to(ROOT) else str(here)


def nodes_of_job() -> list[tuple[int | None, str]]:
    """This Slurm job's nodes, each with its part of a heterogeneous job, in the parts'
    order. Raises UserError outside of one."""
    if JOB not in os.environ:
        raise UserError("placement.cluster=slurm needs a job of Slurm; choose scheduler=slurm")
    job = os.environ[JOB]
    said = _said("squeue", "--noheader", f"--jobs={job}", "--format=%i|%N")
    found = []
    for line in said.splitlines():
        number, _, listed = line.strip().partition("|")
        part = PART.search(number)
        for name in _said("scontrol", "show", "hostnames", listed).split() if listed else ():
            found.append((int(part[1]) if part else None, name))
    if not found:
        raise UserError(f"squeue lists no nodes of Slurm job {job}; squeue --jobs={job} shows why")
    return sorted(found, key=lambda one: one[0] or 0)


def _said(*command: str) -> str:
    """What one of Slurm's tools answers. Raises UserError without an answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"Slurm doesn't say which nodes the job has ({error})") from error
    if done.returncode:
        why = done.stderr.strip() or f"status {done.returncode}"
        raise UserError(f"Slurm doesn't say which nodes the job has ({command[0]}: {why})")
    return done.stdout


def telling(lines: Iterable[str]) -> str:
    """The last line that names an error, else the last one."""
    said = list(lines)
    errors = [line for line in said if re.search(r"([Ee]rror|Exception)\b", line)]
    return (errors or said or [""])[-1]


class Line:
    """One node's agent, from here. `name`: the node's, as it is called here."""

    def __init__(self, name: str, command: Sequence[str], checkout: str) -> None:
        self.name = name
        self._program = command[0]
        self._checkout = checkout
        self._answers: queue.Queue[tuple[float, str]] = queue.Queue()
        self.heard_s = 0.0
        """When the last answer came, of the epoch."""
        self._said: deque[str] = deque(maxlen=50)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise UserError(
                f"{command[0]} can't be started ({error.strerror}); install it"
            ) from error
        self._readers = [
            threading.Thread(target=read, daemon=True) for read in (self._read, self._pass_on)
        ]
        self._answering, _ = self._readers
        for reader in self._readers:
            reader.start()

    def tell(self, message: Strict) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # `hear` says why it has ended
            self._process.stdin.write(message.model_dump_json() + "\n")
            self._process.stdin.flush()

    def hear(self, kind: type[Answer], until: float) -> Answer:
        """Its next answer. Raises UserError if none came by then (time.monotonic), or if the
        connection ended."""
        while True:
            try:
                self.heard_s, answer = self._answers.get(timeout=0.1)
                return kind.model_validate_json(answer)
            except queue.Empty:
                pass
            except ValidationError as error:
                raise UserError(
                    f"{self.name} answered what isn't an answer; its checkout may be of another "
                    f"version: update {self._checkout} there"
                ) from error
            if self.ended():
                self._answering.join(END_S)  # an answer may be there and not read yet
                if self._answers.empty():
                    raise UserError(self.end())
            if time.monotonic() > until:
                raise UserError(
                    f"{self.name} gave no answer in time; look at it (is its disk or its driver "
                    "hung?), raise start_limit_s if it is only slow, or leave it out"
                )

    def ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> str:
        """Why the connection ended, in a sentence."""
        status = self._process.wait()
        for reader in self._readers:
            reader.join(END_S)
        reason = telling(self._said) or f"status {status}"
        if status == UNREACHABLE and self._program == "ssh":
            return unreachable(self.name, reason)
        return (
            f"engines can't be started on {self.name}: {reason}; the checkout and its environment "
            f"must be at {self._checkout} there, or where cluster.checkout says"
        )

    def close(self) -> None:
        """End the agent, which ends the engines; `wait` waits for it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def wait(self, until: float) -> None:
        try:
            self._process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self._answers.put((time.time(), line))
            else:
                self._note(line)

    def _pass_on(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._note(line)

    def _note(self, line: str) -> None:
        if line.strip():
            self._said.append(line.strip())
            print(f"{self.name}: {line.rstrip()}", file=sys.stderr, flush=True)


Commands = Callable[..., list[str]]


def commands(address: str, hosts: Sequence[str], checkout: str) -> list[tuple[str, Commands]]:
    """Every node's name, and what starts an agent there with these arguments."""
    if address != SLURM:
        return [(host, _ssh(host, checkout)) for host in hosts]
    return [(node, _srun(part, node)) for part, node in nodes_of_job()]


def _ssh(host: str, checkout: str) -> Commands:
    return lambda *arguments: over_ssh(host, checkout, *arguments)


def _srun(part: int | None, node: str) -> Commands:
    return lambda *arguments: by_srun(part, node, *arguments)


def close_all(lines: Sequence[Line]) -> None:
    """End all of them, and wait no longer than for one."""
    for line in lines:
        line.close()
    until = time.monotonic() + END_S
    for line in lines:
        line.wait(until)
