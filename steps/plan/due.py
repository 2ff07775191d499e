"""Which jobs of a plan have to run, and why: our own records say it, wherever results/ came from.

Snakemake starts what is due here and nothing else; its own notes decide nothing. A result that is
damaged is not due: measuring it again takes hours, and is asked for (./reproduce again).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.base import elsewhere
from steps.base.errors import UserError
from steps.base.record import FORMAT, Manifest, Record, sha256_file
from steps.plan.changes import changes, code_changes, in_short, older
from steps.plan.code import Code, codes
from steps.plan.plan import Job, Plan
from steps.plan.registry import PER_CELL, STEPS


@dataclass(frozen=True)
class Reason:
    """Why a job has to run, in words; `missing`: it has no result. `derived`: what is there holds
    for now, but something that it is made from is made again."""

    words: str
    missing: bool = False
    derived: bool = False


JUDGED = ("describe", "quick_check")
"""Artifacts that are made for themselves, as the rule `judged` of the Snakefile asks."""

DAMAGED = "damaged"
MISSING = Reason("not made yet", missing=True)


def due(plan: Plan, root: Path, known: Mapping[str, Code] | None = None) -> dict[str, Reason]:
    """By output, in the plan's order. `known`: the code of every step, as `codes` has it."""
    return _Judge(plan, root, known or codes(root)).found()


def wanted(plan: Plan, outputs: Iterable[str]) -> set[str]:
    """These outputs and all that they are made from or wait for."""
    by_output = {job.output: job for job in plan.jobs}
    found, left = set[str](), [path for path in outputs if path in by_output]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += [path for path in _sources(by_output[one]) if path in by_output]
    return found


def judged(plan: Plan) -> set[str]:
    """Outputs of the rule `judged`: all that is measured, and the verdicts on it."""
    return {job.output for job in plan.jobs if job.step in (*PER_CELL, *JUDGED)}


def packaged(plan: Plan) -> list[str]:
    """Output of the rule `all`, for which everything else is made."""
    return [job.output for job in plan.jobs if job.step == "provenance"]


def unsettled(plan: Plan, reasons: Mapping[str, Reason]) -> list[str]:
    """Artifacts to make before anything else: whether results that wait for them stay is only known
    then, for an artifact that comes out as it was leaves them alone."""
    steps = {job.output: job.step for job in plan.jobs}
    needed = wanted(plan, [path for path, reason in reasons.items() if reason.derived])
    return [
        path
        for path, reason in reasons.items()
        if not reason.derived and path in needed and STEPS[steps[path]].stage == "artifacts"
    ]


def earlier_in(plan: Plan, root: Path) -> int:
    """How many results are of an earlier version, which didn't write down what code made them."""
    read = [_read(root / job.output) for job in plan.jobs]
    return sum(isinstance(one, tuple) and one[1].number < FORMAT for one in read)


def told(plan: Plan, reasons: Mapping[str, Reason]) -> list[str]:
    """One line for each reason, with its jobs; none for what was never made and what follows from
    the others."""
    jobs: dict[str, list[str]] = {}
    for job in plan.jobs:
        reason = reasons.get(job.output)
        if reason is not None and not reason.missing and not reason.derived:
            jobs.setdefault(reason.words, []).append(f"{job.step} {job.key}".strip())
    return [f"{words}: {in_short(names)}" for words, names in jobs.items()]


def _sources(job: Job) -> Iterator[str]:
    yield from job.inputs.values()
    yield from job.gates


class _Judge:
    """Reads each record of a plan once."""

    def __init__(self, plan: Plan, root: Path, known: Mapping[str, Code]) -> None:
        self._plan, self._root, self._codes = plan, root, known
        self._digests: dict[str, str | None] = {}
        self._read = {job.output: _read(root / job.output) for job in plan.jobs}
        self._damaged = {path for path, read in self._read.items() if read == DAMAGED}

    def found(self) -> dict[str, Reason]:
        own = {job.output: reason for job in self._plan.jobs if (reason := self._own(job))}
        artifacts = {job.output for job in self._plan.jobs if _waits(job)}
        # An artifact that is gone is made again only for a job that needs it.
        gone = {path for path, reason in own.items() if reason is MISSING and path in artifacts}
        needed = wanted(self._plan, own.keys() - gone)
        found = {path: reason for path, reason in own.items() if path in needed}
        while more := dict(self._derived(found)):
            found |= more
        return {job.output: found[job.output] for job in self._plan.jobs if job.output in found}

    def _derived(self, found: Mapping[str, Reason]) -> Iterator[tuple[str, Reason]]:
        """Jobs with nothing against them but that an input is made again."""
        for job in self._plan.jobs:
            again = [role for role, source in job.inputs.items() if source in found]
            there = self._digest(job.output) is not None and job.output not in self._damaged
            if again and there and job.output not in found:
                yield job.output, Reason(f"its input {again[0]} is made again", derived=True)

    def _own(self, job: Job) -> Reason | None:
        read = self._read[job.output]
        if read is None:
            return MISSING
        if isinstance(read, str):
            return None
        manifest, record = read
        words = [*changes(job, manifest, record), *self._code(job, record)]
        words += self._inputs(job, manifest)
        return Reason(in_short(words)) if words else None

    def _code(self, job: Job, record: Record) -> Iterator[str]:
        for words in (older(job, record), code_changes(record, self._codes[job.step])):
            if words:
                yield words

    def _inputs(self, job: Job, manifest: Manifest) -> Iterator[str]:
        """Inputs that are there and not those it was made from; a damaged one may be restored."""
        for role, source in job.inputs.items():
            digest, made_from = self._digest(source), manifest.inputs.get(role)
            if digest is None or digest == made_from or source in self._damaged:
                continue
            if made_from not in elsewhere.digests(self._root / source):
                yield f"its input {role} ({source}) was made again since"

    def _digest(self, source: str) -> str | None:
        if source not in self._digests:
            path = self._root / source
            self._digests[source] = sha256_file(path) if path.is_file() else None
        return self._digests[source]


def _read(path: Path) -> tuple[Manifest, Record] | str | None:
    """A result; DAMAGED, or None if there is none."""
    if not path.is_file():
        return None
    try:
        return Manifest.read(path), Record.read(path)
    except UserError:
        return DAMAGED


def _waits(job: Job) -> bool:
    """Whether it is made only if something needs it."""
    return STEPS[job.step].stage == "artifacts" and job.step not in JUDGED
