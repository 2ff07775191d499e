"""`./reproduce verify`: do the results on disk still belong to this plan?

Reads manifests and records only, so it holds on another machine and without Snakemake's metadata.
"""

import json
from pathlib import Path

from steps.errors import UserError
from steps.plan import Job, Plan, load
from steps.record import RECORD, Manifest, canonical_json, sha256_file
from steps.registry import code_digest

OTHER_CODE = "made by other code than today's"


def verify(path: Path, root: Path) -> int:
    """Print one line per job that doesn't hold, and a total; 0 if all hold, else 1."""
    plan = load(path)
    codes = {step: code_digest(step, root) for step in {job.step for job in plan.jobs}}
    failed = 0
    stated = _stated(plan, root)
    for job in plan.jobs:
        complaints = complaints_of(job, root, codes[job.step])
        if job.step == "provenance" and not complaints:
            complaints = stated
        failed += bool(complaints)
        for complaint in complaints:
            print(f"{job.step} {job.key}: {complaint}".replace(" :", ":"))
    held = len(plan.jobs) - failed
    print(
        f"{held} of {len(plan.jobs)} results hold (experiment {plan.experiment}, plan {path.stem})"
    )
    return 1 if failed else 0


def _stated(plan: Plan, root: Path) -> list[str]:
    """What the submission's statement says otherwise than the manifests."""
    from steps.provenance.package import STATEMENT, disagreements
    from steps.provenance.statement import read

    for job in plan.jobs:
        path = (root / job.output).with_name(STATEMENT)
        if job.step == "provenance" and path.is_file():
            inputs = {role: root / below for role, below in job.inputs.items()}
            return disagreements(read(path), inputs, Manifest.read(root / job.output))
    return []


def complaints_of(job: Job, root: Path, code: str) -> list[str]:
    """What is wrong with one job's output, one phrase each; `code` is today's digest."""
    try:
        manifest = Manifest.read(root / job.output)
        record = json.loads((root / job.output).with_name(RECORD).read_text(encoding="utf-8"))
    except UserError as error:
        return [str(error)]
    except (OSError, ValueError) as error:
        return [f"{RECORD} is missing or damaged ({error})"]
    found = list(manifest.damage())
    if canonical_json(manifest.config) != job.config:
        found.append("made with another configuration than the plan's")
    if record.get("code") != code:
        found.append(OTHER_CODE)
    for role, path in job.inputs.items():
        source = root / path
        if not source.is_file():
            found.append(f"its input {role} ({path}) is missing")
        elif manifest.inputs.get(role) != sha256_file(source):
            found.append(f"its input {role} ({path}) is not what it was made from")
    return found
