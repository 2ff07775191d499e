"""The commands that measure and report: `./reproduce [again]`, `report`, `status`. However a run
ended, the page is made from the existing results, and the last lines on the terminal say which
cells aren't valid, why, and how to fix them.
"""

import importlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from steps.base import earlier
from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.base.strict import Strict
from steps.base.venv import is_whole
from steps.config import verdicts
from steps.config.runs import PerformanceRunConfig
from steps.config.verdicts import Verdict
from steps.machine.tools import environment_python
from steps.plan.changes import REMADE
from steps.plan.due import Reason, due, earlier_in, judged, unsettled, wanted
from steps.plan.frozen import FORCES, RUNS_NOTHING, UNTIL, scheduler, snakemake
from steps.plan.plan import Job, Plan, environment_directory, load
from steps.plan.registry import AFTER_PERFORMANCE, PER_CELL, STEPS
from steps.plan.states import (
    WORDS,
    CellState,
    Part,
    State,
    States,
    Trouble,
    below,
    described,
    mending,
    selected,
    troubles,
    word_for,
)
from steps.plan.unsupported import Standing
from steps.report.pages import bring_up_to_date
from steps.schedule import supervisor

KINDS = {"performance_run": "performance", "accuracy_run": "accuracy"}
"""Other names of the results that `again` measures: the steps'."""


@dataclass(frozen=True)
class Asked:
    """A frozen plan, and the overrides it was made with. `left`: its cells that aren't run here,
    for which nothing is prepared either.
    """

    path: Path
    plan: Plan
    root: Path
    overrides: Sequence[str]
    left: tuple[Standing, ...] = ()

    @classmethod
    def of(cls, path: Path, root: Path, overrides: Sequence[str]) -> "Asked":
        return cls(path, load(path), root, overrides)

    def cells(self) -> tuple[CellState, ...]:
        return States(self.plan, self.root).cells()

    def judged(self) -> tuple[str, ...]:
        """What to ask snakemake for so that all that can be is measured and judged here."""
        if not self.left:
            return ("judged",)
        apart = {one.key for one in self.left}
        cells = [cell.key for cell in described(self.plan).cells if cell.key not in apart]
        systems = {key.split("/")[0] for key in cells}
        return tuple(
            job.output
            for job in self.plan.jobs
            if (job.step in PER_CELL and any(f"{job.key}/".startswith(f"{c}/") for c in cells))
            or (job.step == "describe" and job.key in systems)
        )

    def here(self) -> set[str]:
        """Outputs of that."""
        return set(self.judged()) if self.left else judged(self.plan)

    def execute(self, passed_on: Sequence[str]) -> int:
        """Run what is due; returns snakemake's exit status, or 128 and a signal's number."""
        if (name := scheduler(self.path)) == "local":
            command = [*snakemake(self.path), *passed_on]
            return supervisor.supervise(command, self.root, self.plan.stop_limit_s)
        found = {"slurm": "steps.schedule.run", "kubernetes": "steps.schedule.kubernetes.run"}
        module = importlib.import_module(found[name])
        return int(module.run(self.path, list(passed_on), self.root))


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
    reasons, status = settled(asked)
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


def settled(asked: Asked) -> tuple[dict[str, Reason], int]:
    """What is due, by output, and the last status. Artifacts that results wait for are made first,
    since those results stay if they come out as they were; a failure is met again by what needs
    them.
    """
    needed, tried, status = wanted(asked.plan, asked.here()), set[str](), 0
    while True:
        reasons = due(asked.plan, asked.root)
        found = [path for path in unsettled(asked.plan, reasons) if path in needed]
        # What is due again once it was made would be so for ever, by itself or in turns.
        if status or tried.issuperset(found):
            return reasons, status
        tried.update(found)
        status = asked.execute(found)


def _as_told(asked: Asked, passed_on: Sequence[str]) -> int:
    """With snakemake's arguments: only what they ask for, and which of it isn't valid."""
    before = due(asked.plan, asked.root).keys()
    status = asked.execute(passed_on)
    words = {word.partition("=")[0] for word in passed_on}
    # With --until, Snakemake leaves out what needs an artifact that it has only just made.
    while status == 0 and words & UNTIL and not words & FORCES:
        now = due(asked.plan, asked.root).keys()
        if not (now < before and _artifacts(asked, before - now)):
            break
        before, status = now, asked.execute(passed_on)
    found = [cell for cell in asked.cells() if cell.state in ("invalid", "damaged", "failed")]
    for line in lines(found, asked):
        print(line, flush=True)
    return status or min(len(found), 1)


def _artifacts(asked: Asked, outputs: Collection[str]) -> bool:
    """Whether any of these is an artifact's."""
    jobs = (job for job in asked.plan.jobs if job.output in outputs)
    return any(STEPS[job.step].stage == "artifacts" for job in jobs)


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
    (performance, accuracy, TEST06), steps whose results are damaged."""
    parts = list(chosen(asked.cells(), words))
    artifacts = [t.job for t in troubles(asked.plan, asked.root) if _artifact(t, words)]
    if not parts and not artifacts:
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
        yield from (part for part in cell.parts if part.name in picked and part.tries)


def _artifact(trouble: Trouble, words: Sequence[str]) -> bool:
    """Whether a damaged result that isn't measured must be made again."""
    if STEPS[trouble.job.step].stage != "artifacts":
        return False
    return not words or trouble.job.step in words


def _aside(asked: Asked, part: Part, reason: str) -> None:
    earlier.set_aside((asked.root / part.run).parent, reason)


def remake(asked: Asked) -> None:
    """Remove damaged verdicts and packages, and verdicts of other versions: their inputs exist."""
    for job in asked.plan.jobs:
        path = asked.root / job.output
        if not path.is_file() or (STEPS[job.step].stage not in REMADE and not _judges(job)):
            continue
        try:
            manifest = Manifest.read(path)
            if _judges(job):
                verdicts.of(manifest, Verdict)
            complaints = manifest.altered()
        except UserError as error:
            complaints = [str(error)]
        if complaints:
            words = below(complaints[0], asked.root)
            print(f"{job.step} {job.key}".strip() + f": {words}; it is made again", flush=True)
            path.unlink()


def _judges(job: Job) -> bool:
    return job.step.endswith("_check")


# ---- what is said of it --------------------------------------------------------------------------


def present(asked: Asked) -> int:
    """Bring the page up to date, print which cells are valid and which aren't; 0 if all are, else
    1.
    """
    states = States(asked.plan, asked.root)
    cells, whole = states.cells(), list(states.whole())
    page = _page(asked, cells, environment_if_there)
    print(numbers(asked, cells))
    apart = {one.key for one in asked.left}
    bad = [cell for cell in cells if cell.state != "valid" and cell.key not in apart]
    found = [*lines(bad, asked), *broken(asked)]
    for line in found or [f"{step}: {why}" for step, why in whole if not apart]:
        print(line)
    if asked.left:
        print(elsewhere(asked))
    print(page, flush=True)
    return 1 if found or whole else 0


def elsewhere(asked: Asked) -> str:
    """A table of the cells that aren't run here and why, and how their results get here."""
    keys = [cell.key for cell in described(asked.plan).cells]
    rows = [[word_for(one.key, keys), one.wants or "-", one.why] for one in asked.left]
    table = tabulate(
        rows,
        headers=["not run here", "needs", "why"],
        tablefmt="simple",
        maxcolwidths=[None, None, 80],
    )
    return (
        f"{table}\nresults of other machines are brought here by ./reproduce collect DIRECTORY... "
        f"{' '.join(asked.overrides)}".rstrip()
    )


def numbers(asked: Asked, cells: Sequence[CellState]) -> str:
    """How many cells are valid, and their values."""
    keys = [cell.key for cell in cells]
    valid = [cell for cell in cells if cell.state == "valid"]
    reached = [f"{word_for(cell.key, keys)} {cell.parts[0].value}" for cell in valid]
    what = f"{asked.plan.experiment}: {len(valid)} of {len(cells)} cells valid"
    return f"{what}: {', '.join(reached)}" if reached else what


def lines(cells: Sequence[CellState], asked: Asked) -> list[str]:
    """One line per cell: its state, why, and the command that fixes it."""
    keys = [cell.key for cell in described(asked.plan).cells]
    return [
        f"{word_for(cell.key, keys)} {WORDS[cell.state]}"
        f"{f': {cell.why}' if cell.why else ''}: {mending(cell, keys, asked.overrides)}"
        for cell in cells
    ]


def broken(asked: Asked) -> list[str]:
    """Damaged results that belong to no cell, one line each."""
    return [
        trouble.line(asked.overrides)
        for trouble in troubles(asked.plan, asked.root)
        if STEPS[trouble.job.step].stage != "runs"
    ]


def report(asked: Asked) -> int:
    """The page, at any time; the environment that draws it is made if absent."""
    print(_page(asked, asked.cells(), lambda root: environment_python(root, "analysis")))
    return 0


def _page(asked: Asked, cells: tuple[CellState, ...], python: Callable[[Path], Path | None]) -> str:
    """The page's path; or a message why it couldn't be made, unless only the page was asked for."""
    found = python(asked.root)
    if found is None:
        return "no page: the analysis environment isn't there yet; ./reproduce report makes both"
    try:
        page = bring_up_to_date(asked.path, asked.plan, asked.root, cells, found)
    except UserError as error:
        if python is not environment_if_there:
            raise
        return f"no page: {error}"
    return str(page.relative_to(asked.root))


def environment_if_there(root: Path) -> Path | None:
    """The interpreter that draws, unless it would have to be installed first."""
    directory = root / environment_directory(root, "analysis")
    return directory / "bin/python" if is_whole(directory) else None


class CellStatus(CellState):
    """A cell, and what its parts come to."""

    overall: State
    reason: str
    fix: str


class Status(Strict):
    """What `status --json` prints; `damaged`: results that are no cell's own, a sentence each."""

    experiment: str
    plan: str
    cells: tuple[CellStatus, ...]
    damaged: tuple[str, ...]

    @classmethod
    def of(cls, asked: Asked, cells: Sequence[CellState]) -> "Status":
        keys = [cell.key for cell in cells]
        return cls(
            experiment=asked.plan.experiment,
            plan=asked.path.stem,
            cells=tuple(
                CellStatus(
                    **dict(cell),
                    overall=cell.state,
                    reason=cell.why,
                    fix="" if fine(cell) else mending(cell, keys, asked.overrides),
                )
                for cell in cells
            ),
            damaged=tuple(broken(asked)),
        )


def fine(cell: CellState) -> bool:
    """Whether nothing has to be done for it."""
    return cell.state in ("valid", "running")


def status(asked: Asked, *, as_json: bool = False) -> int:
    """A table of all cells: valid, running, due, failed and why."""
    cells = asked.cells()
    if as_json:
        print(Status.of(asked, cells).model_dump_json(indent=1))
        return 0
    keys = [cell.key for cell in cells]
    names = list(dict.fromkeys(part.name for cell in cells for part in cell.parts))
    rows = [
        [
            word_for(cell.key, keys),
            WORDS[cell.state],
            *(_shown(cell, name) for name in names),
            cell.tries or "",
        ]
        for cell in cells
    ]
    print(tabulate(rows, headers=["cell", "state", *names, "tries"], tablefmt="simple"))
    others = [cell for cell in cells if not fine(cell)]
    for line in (*lines(others, asked), *broken(asked)):
        print(line)
    print(numbers(asked, cells))
    return 0


def _shown(cell: CellState, name: str) -> str:
    part = next((part for part in cell.parts if part.name == name), None)
    if part is None:
        return "-"
    left = "" if part.seconds_left is None else f", {part.seconds_left:.0f} s left"
    value = f", {part.value}" if part.value else ""
    return f"{WORDS[part.state]}{left}{value}"
