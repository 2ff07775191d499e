"""A frozen plan that was asked for and what has become of it: the last lines of a run, `report`,
`status`. What measures is in steps/commands/measuring.py.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from steps.base.errors import UserError
from steps.base.strict import Strict
from steps.base.venv import is_whole
from steps.machine.tools import environment_python
from steps.plan.due import judged
from steps.plan.frozen import scheduler, snakemake
from steps.plan.plan import Plan, environment_directory, load
from steps.plan.registry import PER_CELL, STEPS
from steps.plan.states import (
    WORDS,
    CellState,
    State,
    States,
    described,
    mending,
    troubles,
    word_for,
)
from steps.plan.unsupported import Standing
from steps.report.refresh import bring_up_to_date
from steps.schedule import supervisor


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
        found = {"slurm": "steps.schedule.slurm_run", "kubernetes": "steps.schedule.kubernetes.run"}
        module = importlib.import_module(found[name])
        return int(module.run(self.path, list(passed_on), self.root))


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
