"""`./reproduce verify`: do the results on disk still belong to this plan?"""

from collections.abc import Sequence
from pathlib import Path

from steps.base.errors import UserError, shown
from steps.base.record import FORMAT, Manifest
from steps.commands.results import Asked, broken, lines
from steps.config import verdicts
from steps.config.verdicts import Verdict
from steps.plan.complaints import complaints_of
from steps.plan.plan import Job, Plan, load
from steps.plan.registry import code_digest


def verify(path: Path, root: Path, typed: Sequence[str] = ()) -> int:
    """Print one line per job that doesn't hold, the commands that mend it, and a total; 0 if all
    hold, else 1. `typed`: the overrides."""
    asked = Asked(path, load(path), root, typed)
    plan = asked.plan
    codes = {step: code_digest(step, root) for step in {job.step for job in plan.jobs}}
    failed, unvouched = 0, 0
    stated = _stated(plan, root)
    for job in plan.jobs:
        complaints = complaints_of(job, root, codes[job.step]) or _not_valid(job, root)
        if job.step == "provenance" and not complaints:
            complaints = stated
        failed += bool(complaints)
        unvouched += not complaints and not Manifest.read(root / job.output).vouched
        for complaint in complaints:
            print(shown(f"{job.step} {job.key}: {complaint}".replace(" :", ":")))
    bad = [cell for cell in asked.cells() if cell.state in ("invalid", "damaged")]
    for line in (*lines(bad, asked), *broken(asked)):
        print(shown(line))
    held = len(plan.jobs) - failed
    print(
        f"{held} of {len(plan.jobs)} results hold (experiment {plan.experiment}, plan {path.stem})"
    )
    if unvouched:
        print(
            f"{unvouched} of them of format 1, whose conclusions no digest vouches for; their "
            f"files have one, and what is made again is of format {FORMAT}"
        )
    return 1 if failed else 0


def _not_valid(job: Job, root: Path) -> list[str]:
    """A verdict that is whole and says that its result isn't valid."""
    if not job.step.endswith("_check"):
        return []
    try:
        why = verdicts.read(root / job.output, Verdict).why
    except UserError as error:
        return [str(error)]
    return [f"doesn't hold: {why}"] if why else []


def _stated(plan: Plan, root: Path) -> list[str]:
    """What the submission's statement says otherwise than the manifests."""
    from steps.submit.provenance.package import STATEMENT, disagreements
    from steps.submit.provenance.statement import read

    for job in plan.jobs:
        path = (root / job.output).with_name(STATEMENT)
        if job.step == "provenance" and path.is_file():
            inputs = {role: root / below for role, below in job.inputs.items()}
            return disagreements(read(path), inputs, Manifest.read(root / job.output))
    return []
