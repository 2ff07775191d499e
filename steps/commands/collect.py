"""`./reproduce collect DIRECTORY... [OVERRIDE ...]`: brings results of other machines here.

Every result is checked by its digests, where it was made and once more as it was copied, and has to
be what this plan wants, by today's code. Then tree, `validate` and page are made of all of them.
"""

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from steps import ROOT
from steps.base import earlier, elsewhere
from steps.base.arguments import Parser, UsageError, as_typed, is_override, site_argument
from steps.base.errors import UserError
from steps.base.record import BESIDE, MANIFEST, RECORD, Manifest, Record, sha256_file
from steps.plan.changes import changes
from steps.plan.code import Code, codes
from steps.plan.complaints import complaints_at
from steps.plan.frozen import frozen_plan
from steps.plan.plan import Job, Plan, load
from steps.plan.registry import STEPS
from steps.schedule import supervisor

BROUGHT = ("artifacts", "runs", "verdicts")
"""Stages whose results are brought; tree and statement are made here, of all of them."""


def declare(parser: Parser) -> None:
    """The directories, and the plan whose results they hold."""
    parser.usage = f"{parser.prog} DIRECTORY... [OVERRIDE ...] [--site FILE]"
    parser.add_argument(
        "words",
        nargs="+",
        metavar="DIRECTORY|OVERRIDE",
        help="checkouts of other machines, or copies of their results/; and overrides",
    )
    site_argument(parser)


def command(given: argparse.Namespace) -> int:
    """Exit status 0 if every cell of the plan is valid then, else 1."""
    from steps.commands import measuring, results

    homes = [results_of(Path(word)) for word in given.words if not is_override(word)]
    overrides = [word for word in given.words if is_override(word)]
    if not homes:
        raise UsageError("collect needs a directory: another machine's checkout or results/")
    path = frozen_plan(ROOT, overrides, given.site)
    plan = load(path)
    supervisor.lock(ROOT)
    os.chdir(ROOT)
    found = list(wanted(plan, homes, ROOT))
    for one in found:
        one.bring()
    for home in homes:
        count = sum(one.home == home and not one.beside for one in found)
        print(f"{home}: {count} result{'' if count == 1 else 's'} brought here", flush=True)
    asked = results.Asked.of(path, ROOT, as_typed(overrides, given.site))
    if all(cell.state == "valid" for cell in asked.cells()):
        return measuring.run(asked, ())
    return results.present(asked)


def results_of(directory: Path) -> Path:
    """The results of a checkout, or of a copy of its results/. Raises UserError for neither."""
    for found in (directory / "results", directory):
        if (found / "artifacts").is_dir():
            return found.resolve()
    raise UserError(
        f"{directory} holds no results: it has neither results/artifacts nor artifacts; name "
        "another machine's checkout, or a copy of its results/"
    )


@dataclass(frozen=True)
class Brought:
    """A result that is to be brought. `beside`: only its manifest is kept, for this machine has an
    artifact of its own.
    """

    job: Job
    home: Path
    root: Path
    beside: bool

    @property
    def theirs(self) -> Path:
        return _place(self.home, self.job.output)

    @property
    def ours(self) -> Path:
        return self.root / self.job.output

    def bring(self) -> None:
        """Copy it to a temporary name, check the copy, move it into place."""
        if self.beside:
            elsewhere.keep(self.theirs, self.ours)
            return
        source, target = self.theirs.parent, self.ours.parent
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            names = [*Manifest.read(self.theirs).files, *filter(self._has, BESIDE)]
            for name in (*names, RECORD, MANIFEST):  # last: what is newer than it was changed
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, temporary / name)
            for complaint in Manifest.read(temporary / MANIFEST).damage():
                raise UserError(f"{source} could not be copied: {complaint}")
            _clear(target)
            os.rename(temporary, target)
        except OSError as error:
            raise UserError(
                f"{source} can't be copied to {target} ({error.strerror}); what was brought before "
                "stays, and the same command goes on"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _has(self, name: str) -> bool:
        return self.theirs.with_name(name).is_file()


def _clear(target: Path) -> None:
    """What is there isn't what the plan wants: a run is set aside, anything else can be made
    again."""
    if not target.exists():
        return
    if earlier.home(target) is not None:
        earlier.set_aside(target, "another machine's result took its place")
    else:
        shutil.rmtree(target)


def wanted(plan: Plan, homes: Sequence[Path], root: Path) -> Iterator[Brought]:
    """What to bring, in data order. Raises UserError for a result that doesn't hold, and for two of
    one run that differ; nothing is copied then.
    """
    known_code = codes(root)
    for job in plan.jobs:
        if STEPS[job.step].stage not in BROUGHT:
            continue
        known = _digest(job, root)
        for home in homes:
            path = _place(home, job.output)
            if not path.is_file():
                continue
            theirs = sha256_file(path)
            if theirs == known:
                continue
            if not _of_the_plan(path, job):
                continue
            _require(job, home, root, known_code[job.step])
            if known is None:
                known = theirs
                yield Brought(job, home, root, beside=False)
            elif STEPS[job.step].stage == "artifacts":
                yield Brought(job, home, root, beside=True)
            elif STEPS[job.step].stage == "runs":
                raise UserError(
                    f"{job.step} {job.key} was measured on several machines, and {path.parent} "
                    "isn't the result that is here or comes first; decide for one, and delete the "
                    "other"
                )


def _digest(job: Job, root: Path) -> str | None:
    """The digest of what is here, if the plan wants it and it is whole."""
    path = root / job.output
    if not path.is_file():
        return None
    try:
        damage = Manifest.read(path).altered()
        if not damage:
            return sha256_file(path) if _of_the_plan(path, job) else None
    except UserError as error:
        damage = [f"{error}"]
    print(f"{damage[0]}; another machine's result takes its place, if there is one", flush=True)
    return None


def _of_the_plan(path: Path, job: Job) -> bool:
    return not any(changes(job, Manifest.read(path), Record.read(path)))


def _require(job: Job, home: Path, root: Path, code: Code) -> None:
    """Raises UserError for a result that isn't whole, or not what it says it was made from."""
    manifest = Manifest.read(_place(home, job.output))
    for name in manifest.files:
        path = manifest.directory / name
        if Path(name).is_absolute() or ".." in Path(name).parts or path.is_symlink():
            raise UserError(f"{path} isn't a file of its result; nothing was brought")
    for complaint in complaints_at(job, lambda path: _source(path, home, root), code):
        raise UserError(
            f"{job.step} {job.key} of {home} can't be brought here, and nothing was: {complaint}"
        )


def _source(path: str, home: Path, root: Path) -> Path:
    """Locks and recipes are this checkout's, everything else the other machine's."""
    return _place(home, path) if path.startswith("results/") else root / path


def _place(home: Path, output: str) -> Path:
    return home / output.removeprefix("results/")
