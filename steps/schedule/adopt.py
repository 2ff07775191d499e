"""Records the results of Slurm's jobs that outlived a killed ./reproduce.

Only the process that submits a job records it. A result without a record would be made again, or,
if it is the first, be taken for a result of the next plan.
"""

import subprocess
from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import write_atomically
from steps.plan.complaints import OTHER_CODE, complaints_of
from steps.plan.plan import Plan, load
from steps.plan.registry import code_digest
from steps.schedule.resources import STAYING

MARK = Path("results/logs/slurm/unfinished")
"""A file with the plan of a ./reproduce, from its start until snakemake has ended by itself."""

RECORD_LIMIT_S = 600.0


def begin(plan: Path, root: Path) -> None:
    write_atomically(root / MARK, f"{plan.relative_to(root)}\n")


def end(root: Path) -> None:
    (root / MARK).unlink(missing_ok=True)


def adopt(snakemake: Path, root: Path) -> None:
    """Record the results of the plan that the mark names. Raises UserError if that fails."""
    if not (root / MARK).is_file():
        return
    path = root / (root / MARK).read_text(encoding="utf-8").strip()
    if not path.is_file():
        return
    plan = load(path)
    held = _held(plan, root)
    if not held:
        return
    rules = sorted({job.step for job in plan.jobs if job.output in held})
    done = subprocess.run(
        [
            *(str(snakemake), *held, "--touch", "--force", "--allowed-rules", *rules),
            *("--configfile", str(path.relative_to(root))),
            *("--workflow-profile", "workflow/profiles/default"),
        ],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=RECORD_LIMIT_S,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"snakemake doesn't record what an earlier ./reproduce left ({last}); delete "
            f"{MARK} and the results of plan {path.stem} that ./reproduce verify names"
        )


def _held(plan: Plan, root: Path) -> list[str]:
    """Outputs whose digests all match this plan. Results of other code are removed, because
    Snakemake would make them again; results of other plans were there before and have their
    records.
    """
    found = []
    for job in plan.jobs:
        if job.step in STAYING or not (root / job.output).is_file():
            continue
        complaints = complaints_of(job, root, code_digest(job.step, root))
        if not complaints:
            found.append(job.output)
        elif complaints == [OTHER_CODE]:
            (root / job.output).unlink()
    return found
