"""`./reproduce [run]` and `again`: what is due is measured and judged. However that ends, the page
is made from the existing results, and the last lines on the terminal say which cells aren't valid,
why, and how to fix them.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from steps.base import earlier
from steps.base.errors import UserError
from steps.commands.results import Asked, lines, present
from steps.config import verdicts
from steps.config.runs import PerformanceRunConfig
from steps.config.verdicts import Verdict
from steps.plan.changes import REMADE
from steps.plan.due import Reason, due, earlier_in, packaged, unsettled, wanted
from steps.plan.frozen import RUNS_NOTHING
from steps.plan.passed_on import PassedOn, understood
from steps.plan.plan import Job
from steps.plan.registry import AFTER_PERFORMANCE, STEPS
from steps.plan.states import CellState, Part, Trouble, below, damage, selected, troubles, word_for

KINDS = {"performance_run": "performance", "accuracy_run": "accuracy"}
"""Other names of the results that `again` measures: the steps'."""


def run(asked: Asked, passed_on: Sequence[str]) -> int:
    """Measure what is due. Exit status 0 if all that the plan requires is valid, else 1."""
    if any(argument in RUNS_NOTHING for argument in passed_on):
        return asked.execute(passed_on)
    remake(asked)
    if passed_on:
        return _as_told(asked, passed_on)
    try:
        status = _measure(asked)
    except UserError as error:  # of a scheduler; what was measured before is there all the same
        print(f"error: {error}", file=sys.stderr)
        status = 1
    if count := earlier_in(asked.plan, asked.root):
        print(
            f"results of an earlier version of Reprise, which didn't write down what code made "
            f"them: {count}; they stay, and ./reproduce again measures those that you name"
        )
    return max(present(asked), min(status, 1)) if status < 128 else _interrupted(asked, status)


def _measure(asked: Asked) -> int:
    """All runs and verdicts, then the tree if every cell is valid; snakemake's last status."""
    reasons, status = settled(asked, wanted(asked.plan, asked.here()))
    if status >= 128:
        return status
    measured = bool(reasons.keys() & asked.here())
    status = asked.execute(asked.judged()) if measured else 0
    if status < 128 and (cells := list(disturbed(asked))):
        measured = True
        for cell in cells:
            part = cell.parts[0]
            _aside(asked, part, f"its window was disturbed: {part.why}")
            print(f"measured once more, for its window was disturbed: {part.run}", flush=True)
        # Nothing else: what failed isn't tried again without being asked for.
        parts = [part for cell in cells for part in cell.parts if part.name != "accuracy"]
        again = asked.execute([part.check for part in parts])
        status = again or status
    valid = status == 0 and all(cell.state == "valid" for cell in asked.cells())
    if valid and (reasons or measured):
        return asked.execute(())
    if not measured:
        print(f"{asked.plan.experiment}: nothing to do", flush=True)
    return status


def settled(
    asked: Asked, needed: Collection[str], options: Sequence[str] = ()
) -> tuple[dict[str, Reason], int]:
    """What is due, by output, and the last status. Artifacts of `needed` that results wait for are
    made first, since those results stay if they come out as they were; a failure is met again by
    what needs them. `options`: Snakemake's.
    """
    tried, status = set[str](), 0
    while True:
        reasons = due(asked.plan, asked.root)
        found = [path for path in unsettled(asked.plan, reasons) if path in needed]
        # What is due again once it was made would be so for ever, by itself or in turns.
        if status or tried.issuperset(found):
            return reasons, status
        tried.update(found)
        status = asked.execute([*found, *options])


def _as_told(asked: Asked, passed_on: Sequence[str]) -> int:
    """With snakemake's arguments: only what they ask for, and which of it isn't valid."""
    told = understood(passed_on, asked.plan, asked.judged() if asked.left else ())
    status = asked.execute(passed_on) if told is None else _due_of(asked, told)
    found = [cell for cell in asked.cells() if cell.state in ("invalid", "damaged", "failed")]
    for line in lines(found, asked):
        print(line, flush=True)
    return status or min(len(found), 1)


def _due_of(asked: Asked, told: PassedOn) -> int:
    """Run what is due of it; no Snakemake is started for nothing."""
    needed = wanted(asked.plan, told.outputs or packaged(asked.plan))
    reasons, status = settled(asked, needed, told.options)
    if status >= 128:
        return status
    # What is gone and nothing needs isn't due; here it is asked for by its name.
    gone = any(not (asked.root / path).exists() for path in told.outputs)
    if gone or reasons.keys() & needed:
        return asked.execute([*told.outputs, *told.options]) or status
    if not status:
        print(f"{asked.plan.experiment}: nothing to do", flush=True)
    return status


def _interrupted(asked: Asked, status: int) -> int:
    present(asked)
    return status


def disturbed(asked: Asked) -> Iterator[CellState]:
    """Cells whose short performance run isn't valid in a disturbed window, and was measured only
    once. Runs of the rules' length are only repeated on request."""
    jobs = {job.output: job for job in asked.plan.jobs}
    for cell in asked.cells():
        part = cell.parts[0]
        if part.state != "invalid" or part.tries > 1:
            continue
        config = PerformanceRunConfig.model_validate_json(jobs[part.run].config)
        short = config.loadgen.least_ms(config.rules) < config.rules.min_duration_ms
        if short and part.window is not None and not part.window.clean:
            yield cell


def again(asked: Asked, words: Sequence[str]) -> int:
    """Measure again what failed, or what the words name: cells (Server, bf16/Server), results
    (performance, accuracy, TEST06), steps whose results are damaged. A run whose verdict alone is
    damaged stays, and is judged again."""
    remade = remake(asked)
    parts = list(chosen(asked.cells(), words))
    artifacts = [t.job for t in troubles(asked.plan, asked.root) if _artifact(t, words)]
    if not parts and not artifacts and not remade:
        raise UserError(
            "none of the named results was measured and isn't valid; to measure a valid one once "
            "more, name it: ./reproduce again performance, accuracy or a test"
        )
    for part in parts:
        _aside(asked, part, part.why or "asked for")
    for job in artifacts:
        (asked.root / job.output).unlink(missing_ok=True)
    return run(asked, ())


def chosen(cells: Sequence[CellState], words: Sequence[str]) -> Iterator[Part]:
    """Results to measure again. UserError for a word that names nothing."""
    kinds = {part.name for cell in cells for part in cell.parts}
    wanted = {KINDS.get(word, word) for word in words if KINDS.get(word, word) in kinds}
    names = [w for w in words if KINDS.get(w, w) not in kinds and w not in STEPS]
    for name in names:
        if not any(selected(cell.key, name) for cell in cells):
            known = ", ".join(word_for(cell.key, [c.key for c in cells]) for cell in cells[:9])
            raise UserError(
                f"{name!r} names no cell of the plan, no result and no step; cells are {known}, "
                f"results {', '.join(sorted(kinds))}"
            )
    for cell in cells:
        if names and not any(selected(cell.key, name) for name in names):
            continue
        picked = {
            part.name
            for part in cell.parts
            if (part.name in wanted if wanted else part.state in ("invalid", "damaged"))
        }
        if "performance" in picked:  # these are compared with its speed
            picked |= set(AFTER_PERFORMANCE)
        there = (part for part in cell.parts if part.tries or part.state == "damaged")
        yield from (part for part in there if part.name in picked)


def _artifact(trouble: Trouble, words: Sequence[str]) -> bool:
    """Whether a damaged result that isn't measured must be made again."""
    if STEPS[trouble.job.step].stage != "artifacts":
        return False
    return not words or trouble.job.step in words


def _aside(asked: Asked, part: Part, reason: str) -> None:
    earlier.set_aside((asked.root / part.run).parent, reason)


def remake(asked: Asked) -> bool:
    """Remove damaged verdicts and packages, and verdicts of other versions: their inputs exist.
    Returns whether there were any."""
    found = False
    for job in asked.plan.jobs:
        path = asked.root / job.output
        if not path.is_file() or (STEPS[job.step].stage not in REMADE and not _judges(job)):
            continue
        if complaint := damage(path) or (_of_another_version(path) if _judges(job) else ""):
            words = below(complaint, asked.root)
            print(f"{job.step} {job.key}".strip() + f": {words}; it is made again", flush=True)
            path.unlink()
            found = True
    return found


def _of_another_version(verdict: Path) -> str:
    try:
        verdicts.read(verdict, Verdict)
    except UserError as error:
        return str(error)
    return ""


def _judges(job: Job) -> bool:
    return job.step in verdicts.CLASSES
