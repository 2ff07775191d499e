"""What has become of a plan: the state of every cell and result, read from what is finished.

Reads manifests, verdicts and logs only: it needs neither Snakemake nor the machine that measured,
and holds beside a ./reproduce that is running.
"""

import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from steps.base import elsewhere, processes
from steps.base.errors import UserError
from steps.base.record import Manifest, Record, sha256_file
from steps.base.strict import Strict
from steps.config import verdicts
from steps.config.results import result_of
from steps.config.run_results import RunResult
from steps.config.submission import Cell, SubmissionConfig
from steps.config.verdicts import Verdict
from steps.config.window import Window
from steps.plan.changes import changes, in_short
from steps.plan.estimate import cost, facts_of
from steps.plan.plan import Job, Plan
from steps.plan.registry import STEPS
from steps.plan.spec import Facts

State = Literal["valid", "invalid", "damaged", "failed", "blocked", "running", "due"]
"""valid: measured and passed. invalid: judged and failed. damaged: a file of the result is
gone or changed. failed: the step that makes it ended with an error. blocked: something that it
needs failed. running: a step is at it. due: nothing was done for it, or what is there isn't what
the plan wants.
"""

WORST: tuple[State, ...] = (
    *("invalid", "damaged", "failed", "blocked", "running", "due", "valid"),
)
"""A cell has the first of these that one of its results has."""

WORDS: Mapping[State, str] = {
    "valid": "valid",
    "invalid": "INVALID",
    "damaged": "damaged",
    "failed": "failed",
    "blocked": "not run",
    "running": "running",
    "due": "missing",
}
"""As people read them."""

LOCK = "results/.lock"
ERROR = "error: "
TAIL_BYTES = 1 << 16


class Part(Strict):
    """One measured result of a cell and the verdict on it: "performance", "accuracy" or a test.

    `run` and `check` are the outputs of its jobs. `why`: in a sentence, unless it is valid.
    `value`: what was measured, in words. `tries`: how often it was measured with these settings,
    this result included; 0 if it wasn't. `seconds_left`: of a running one, if that is known.
    """

    name: str
    run: str
    check: str
    state: State
    why: str = ""
    value: str = ""
    tries: int = 0
    window: Window | None = None
    seconds_left: float | None = None


class CellState(Strict):
    """A cell of the plan and all of its results."""

    key: str
    axes: dict[str, str]
    parts: tuple[Part, ...]

    @property
    def state(self) -> State:
        return min((part.state for part in self.parts), key=WORST.index)

    @property
    def why(self) -> str:
        """The reasons of the parts with the cell's state, in one line."""
        names: dict[str, list[str]] = {}
        for part in self.parts:
            if part.state == self.state and part.why:
                names.setdefault(part.why, []).append(part.name)
        if [len(found) for found in names.values()] == [len(self.parts)]:
            return next(iter(names))
        return "; ".join(f"{', '.join(found)}: {why}" for why, found in names.items())

    @property
    def tries(self) -> int:
        """The tries of the part that was measured most often."""
        return max(part.tries for part in self.parts)


def described(plan: Plan) -> SubmissionConfig:
    """What the plan submits: its cells, round and submitter."""
    job = next(job for job in plan.jobs if job.step == "submission")
    return SubmissionConfig.model_validate_json(job.config)


class States:
    """The states of one plan below `root`; reads each file once."""

    def __init__(self, plan: Plan, root: Path) -> None:
        self._plan = plan
        self._root = root
        self._jobs = {(job.step, job.key): job for job in plan.jobs}
        self._by_output = {job.output: job for job in plan.jobs}
        self._digests: dict[str, str | None] = {}

    def cells(self) -> tuple[CellState, ...]:
        """In the plan's order."""
        return tuple(self._cell(cell) for cell in described(self._plan).cells)

    def _cell(self, cell: Cell) -> CellState:
        axes = ("system", "benchmark", "compression", "precision", "scenario")
        parts = [
            self._part("performance", "performance", cell.key),
            self._part("accuracy", "accuracy", cell.key),
            *(
                self._part(test, "compliance", self._below(cell, test))
                for test in cell.compliance_tests
            ),
        ]
        return CellState(
            key=cell.key,
            axes={axis: str(getattr(cell, axis)) for axis in axes},
            parts=tuple(parts),
        )

    def _below(self, cell: Cell, test: str) -> str:
        return cell.role("", test).rstrip("/")

    def _part(self, name: str, kind: str, key: str) -> Part:
        part = self._judged(name, kind, key)
        return part.model_copy(update={"why": below(part.why, self._root)})

    def _judged(self, name: str, kind: str, key: str) -> Part:
        run, check = self._jobs[f"{kind}_run", key], self._jobs[f"{kind}_check", key]
        part = Part(name=name, run=run.output, check=check.output, state="due")
        at_work = next((job for job in (run, check) if self._running(job)), None)
        if at_work is not None:
            return part.model_copy(update={"state": "running", "seconds_left": self._left(at_work)})
        try:
            manifest = self._current(run)
        except _Unmade as unmade:
            return part.model_copy(update={"state": unmade.state, "why": unmade.why})
        tries = result_of(manifest, RunResult).tries
        part = part.model_copy(update={"tries": tries})
        if altered := manifest.altered():
            return part.model_copy(update={"state": "damaged", "why": altered[0]})
        try:
            verdict = verdicts.of(self._current(check), Verdict)
        except _Unmade as unmade:
            why = unmade.why if unmade.state != "due" else f"measured, but {unmade.why}"
            return part.model_copy(update={"state": unmade.state, "why": why})
        except UserError as error:
            return part.model_copy(update={"state": "due", "why": str(error)})
        state: State = "valid" if verdict.holds else "invalid"
        return part.model_copy(
            update={
                "state": state,
                "why": verdict.why,
                "value": in_words(verdict),
                "window": verdict.window,
            }
        )

    def current(self, step: str, key: str = "") -> Manifest | None:
        """A job's result if it is there, whole and what the plan wants."""
        try:
            found = self._current(self._jobs[step, key])
        except _Unmade:
            return None
        return None if found.altered() else found

    def whole(self) -> Iterator[tuple[str, str]]:
        """The first of the final steps without a result that the plan can use, and why."""
        for step in ("submission", "provenance"):
            try:
                found = self._current(self._jobs[step, ""])
                why = next(iter(found.altered()), "")
            except _Unmade as unmade:
                why = unmade.why
            if why:
                yield step, below(why, self._root)
                return

    # ---- one job ---------------------------------------------------------------------------

    def _current(self, job: Job) -> Manifest:
        """The job's result if it is what the plan wants; raises _Unmade saying what is there."""
        path = self._root / job.output
        if not path.is_file():
            raise self._missing(job)
        try:
            manifest, record = Manifest.read(path), Record.read(path)
        except UserError as error:
            raise _Unmade("damaged", str(error)) from error
        if words := in_short(changes(job, manifest, record)):
            if said := self._error(job, path.stat().st_mtime):
                raise _Unmade("failed", said)
            raise _Unmade("due", f"made with other settings than the plan's: {words}")
        for role, source in job.inputs.items():
            digest, made_of = self._digest(source), manifest.inputs.get(role)
            if digest not in (None, made_of) and made_of not in self._elsewhere(source):
                raise _Unmade("due", f"its input {role} ({source}) was made again since")
        return manifest

    def _missing(self, job: Job) -> "_Unmade":
        """Why a result isn't there: the first reason in the flow's order."""
        for reason in self._reasons(job, set()):
            return reason
        kind = "judged" if job.step.endswith("_check") else "measured"
        return _Unmade("due", f"not {kind} yet")

    def _reasons(self, job: Job, seen: set[str]) -> Iterator["_Unmade"]:
        """What keeps a job from being made, the job's own error first."""
        if error := self._error(job, 0.0):
            yield _Unmade("failed", error)
        for gate in job.gates:
            if (why := self._gate(gate)) is not None:
                yield _Unmade("blocked", why)
        for source in (*job.inputs.values(), *job.gates):
            needed = self._by_output.get(source)
            if needed is None or source in seen or (self._root / source).is_file():
                continue
            seen.add(source)
            for reason in self._reasons(needed, seen):
                yield _Unmade("blocked", f"{needed.step} {needed.key}: {reason.why}")

    def _gate(self, output: str) -> str | None:
        """Why what is behind a gate doesn't run; None if nothing is known against it."""
        try:
            verdict = verdicts.read(self._root / output, Verdict)
        except UserError:
            return None
        return None if verdict.holds else f"{self._by_output[output].step}: {verdict.why}"

    def _error(self, job: Job, since: float) -> str:
        """What the job's log says last, if that is an error; empty if it isn't, or is older."""
        path = self._root / job.log
        try:
            if path.stat().st_mtime < since:
                return ""
            with path.open("rb") as stream:
                stream.seek(max(path.stat().st_size - TAIL_BYTES, 0))
                lines = stream.read().decode("utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        said = [line for line in lines if line.startswith(ERROR)]
        return said[-1].removeprefix(ERROR).removeprefix(f"{job.step}: ") if said else ""

    def _elsewhere(self, source: str) -> set[str]:
        """Digests of the same artifact as other machines made it, whose results are here."""
        return elsewhere.digests(self._root / source)

    def _digest(self, source: str) -> str | None:
        if source not in self._digests:
            path = self._root / source
            self._digests[source] = sha256_file(path) if path.is_file() else None
        return self._digests[source]

    # ---- what is running -------------------------------------------------------------------

    def _running(self, job: Job) -> Path | None:
        """The directory that a step works in. It is named by a process; where that can't be seen
        (another machine, a container) it counts while another ./reproduce holds the lock."""
        directory = (self._root / job.output).parent
        elsewhere = bool(job.container) or self._plan.scheduler.name != "local"
        for path in directory.parent.glob(f".{directory.name}.*.tmp"):
            number = path.name.split(".")[-2]
            if number.isdecimal() and _runs_a_step(int(number)):
                return path
            if elsewhere and self._locked:
                return path
        return None

    @cached_property
    def _locked(self) -> bool:
        return is_locked_by_another(self._root / LOCK)

    def _left(self, job: Job) -> float | None:
        """Seconds that a running job still takes, by its last time or its configuration."""
        path = self._running(job)
        try:
            begun = None if path is None else min(p.stat().st_mtime for p in path.iterdir())
        except (OSError, ValueError):  # it has just begun, or ended
            begun = None
        expected = cost(job, self._facts[job.output], 1, self._root).seconds
        if begun is None or expected is None:
            return None
        return max(expected - (time.time() - begun), 0.0)

    @cached_property
    def _facts(self) -> dict[str, Facts]:
        return facts_of(self._plan.jobs)


class _Unmade(Exception):
    """A job has no result that the plan can use."""

    def __init__(self, state: State, why: str) -> None:
        super().__init__(why)
        self.state: State = state
        self.why = why


def in_words(verdict: Verdict) -> str:
    """The number that a verdict is about."""
    if isinstance(verdict, verdicts.PerformanceVerdict):
        return f"{verdict.value:,.1f} {verdict.unit}"
    if isinstance(verdict, verdicts.AccuracyVerdict) and verdict.gates:
        lowest = min(m.ratio for m in verdict.gates[verdict.reference_gate].metrics.values())
        return f"{lowest:.2%}, lowest metric"
    return ""


@dataclass(frozen=True)
class Trouble:
    """A job whose result is there and damaged; `words` say how."""

    job: Job
    words: str

    def line(self, overrides: Sequence[str]) -> str:
        """A line with the command that fixes it."""
        measured = STEPS[self.job.step].stage in ("artifacts", "runs")
        again = ["again", *overrides, self.job.step] if measured else overrides
        return (
            f"{f'{self.job.step} {self.job.key}'.strip()}: {self.words}: "
            f"{shlex.join(['./reproduce', *again])}"
        )


def troubles(plan: Plan, root: Path) -> list[Trouble]:
    """Damaged results of a plan, whatever step made them."""
    found = []
    for job in plan.jobs:
        path = root / job.output
        if not path.is_file():
            continue
        if words := damage(path):
            found.append(Trouble(job, below(words, root)))
    return found


def damage(output: Path) -> str:
    """What is wrong with a result and its record, "" if nothing is; files that are older than it
    aren't read."""
    try:
        complaints = Manifest.read(output).altered()
        Record.read(output)
    except UserError as error:
        return str(error)
    return next(iter(complaints), "")


def below(words: str, root: Path) -> str:
    """Words that name files by their path in the checkout, wherever that is."""
    return words.replace(f"{root}/", "")


def selected(key: str, word: str) -> bool:
    """Whether a word names a cell: parts of its key that follow each other, as in bf16/Server."""
    return f"/{word.strip('/')}/" in f"/{key}/"


def word_for(key: str, keys: Sequence[str]) -> str:
    """The shortest end of a cell's key that names no other of the plan's."""
    parts = key.split("/")
    ends = ["/".join(parts[at:]) for at in reversed(range(len(parts)))]
    return next((end for end in ends if sum(selected(k, end) for k in keys) == 1), key)


def mending(cell: CellState, keys: Sequence[str], overrides: Sequence[str]) -> str:
    """The command that makes a cell's result what the plan wants."""
    if cell.state in ("invalid", "damaged"):
        return shlex.join(["./reproduce", "again", *overrides, word_for(cell.key, keys)])
    return shlex.join(["./reproduce", *overrides])


def _runs_a_step(pid: int) -> bool:
    return any(word.startswith("steps.") for word in processes.command(pid))


def is_locked_by_another(path: Path) -> bool:
    """Whether a process holds the lock that isn't this one, which asks after its own jobs have
    ended. Doesn't take the lock even for a moment.
    """
    try:
        number = os.stat(path).st_ino
        held = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    # 1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF
    fields = [line.split() for line in held if f":{number} " in line and "FLOCK" in line]
    return any(str(os.getpid()) not in words for words in fields)
