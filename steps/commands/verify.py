"""`./reproduce verify`: do the results on disk still belong to this plan?"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from steps import ROOT
from steps.base.arguments import (
    Parser,
    UsageError,
    as_typed,
    json_argument,
    override,
    site_argument,
)
from steps.base.errors import UserError, shown
from steps.base.record import FORMAT, Manifest, Record
from steps.base.strict import Strict
from steps.commands.results import Asked, broken, lines
from steps.config import verdicts
from steps.config.verdicts import Verdict
from steps.plan.code import codes
from steps.plan.complaints import complaints_of
from steps.plan.frozen import frozen_plan
from steps.plan.plan import Job, Plan, load


def declare(parser: Parser) -> None:
    """The plan, or the directory of a package."""
    parser.add_argument(
        "words",
        nargs="*",
        type=_word,
        metavar="OVERRIDE|DIRECTORY",
        help="of a plan; or the directory that unseal wrote",
    )
    site_argument(parser)
    parser.add_argument(
        "--signer", type=Path, metavar="KEY", help="of a directory: public key, PEM or OpenSSH"
    )
    json_argument(parser, "what was checked and what doesn't hold")


def _word(text: str) -> str | Path:
    return Path(text) if Path(text).is_dir() else override(text)


def command(given: argparse.Namespace) -> int:
    """Exit status 0 if everything holds, else 1."""
    directories = [word for word in given.words if isinstance(word, Path)]
    if not directories:
        if given.signer:
            raise UsageError("--signer is for a directory that unseal wrote; name it")
        path = frozen_plan(ROOT, given.words, given.site)
        return verify(path, ROOT, as_typed(given.words, given.site), as_json=given.json)
    if len(given.words) > 1 or given.site:
        raise UsageError("verify takes one directory, or overrides and --site of a plan, not both")
    from steps.submit.provenance import package

    return package.verify(directories[0], given.signer, as_json=given.json)


class Complaint(Strict):
    """What is wrong with the result of one job."""

    step: str
    key: str
    says: str


class Verified(Strict):
    """What `--json` prints; `fixes`: a sentence each, with the command.

    `unvouched`: valid results of format 1, whose conclusions no digest vouches for. `earlier`:
    valid ones of earlier versions, which didn't write down what code made them."""

    experiment: str
    plan: str
    results: int
    hold: int
    unvouched: int
    earlier: int
    complaints: tuple[Complaint, ...]
    fixes: tuple[str, ...]


def verify(path: Path, root: Path, typed: Sequence[str] = (), *, as_json: bool = False) -> int:
    """Print one line per job whose result isn't valid, the commands that fix it, and a total; 0 if
    all are valid, else 1. `typed`: the overrides."""
    found = verified(path, root, typed)
    if as_json:
        print(found.model_dump_json(indent=1))
    else:
        for one in found.complaints:
            print(shown(f"{one.step} {one.key}: {one.says}".replace(" :", ":")))
        for line in found.fixes:
            print(shown(line))
        print(
            f"{found.hold} of {found.results} results are valid (experiment {found.experiment}, "
            f"plan {found.plan})"
        )
        if found.unvouched:
            print(
                f"{found.unvouched} of them of format 1, whose conclusions no digest vouches for; "
                f"their files have one, and what is made again is of format {FORMAT}"
            )
        if found.earlier:
            print(
                f"{found.earlier} of them were made by an earlier version of Reprise, which didn't "
                "write down what code made them"
            )
    return 1 if found.hold < found.results else 0


def verified(path: Path, root: Path, typed: Sequence[str] = ()) -> Verified:
    """Every result of the plan against its digests, inputs, configuration and code."""
    asked = Asked(path, load(path), root, typed)
    plan = asked.plan
    known = codes(root)
    failed, unvouched, earlier, said = 0, 0, 0, []
    stated = _stated(plan, root)
    for job in plan.jobs:
        complaints = complaints_of(job, root, known[job.step]) or _not_valid(job, root)
        if job.step == "provenance" and not complaints:
            complaints = stated
        failed += bool(complaints)
        if not complaints:
            unvouched += not Manifest.read(root / job.output).vouched
            earlier += Record.read(root / job.output).number < FORMAT
        said += [Complaint(step=job.step, key=job.key, says=text) for text in complaints]
    bad = [cell for cell in asked.cells() if cell.state in ("invalid", "damaged")]
    return Verified(
        experiment=plan.experiment,
        plan=path.stem,
        results=len(plan.jobs),
        hold=len(plan.jobs) - failed,
        unvouched=unvouched,
        earlier=earlier,
        complaints=tuple(said),
        fixes=(*lines(bad, asked), *broken(asked)),
    )


def _not_valid(job: Job, root: Path) -> list[str]:
    """A verdict that is whole and says that its result isn't valid."""
    if not job.step.endswith("_check"):
        return []
    try:
        why = verdicts.read(root / job.output, Verdict).why
    except UserError as error:
        return [str(error)]
    return [f"isn't valid: {why}"] if why else []


def _stated(plan: Plan, root: Path) -> list[str]:
    """Where the submission's statement differs from the manifests."""
    from steps.submit.provenance.package import STATEMENT, disagreements
    from steps.submit.provenance.statement import read

    for job in plan.jobs:
        path = (root / job.output).with_name(STATEMENT)
        if job.step == "provenance" and path.is_file():
            inputs = {role: root / below for role, below in job.inputs.items()}
            return disagreements(read(path), inputs, Manifest.read(root / job.output))
    return []
