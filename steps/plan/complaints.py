"""What is wrong with a job's result on disk: whether it still belongs to its plan.

Reads manifests, records and the files that they list, so it holds on another machine and without
Snakemake's metadata.
"""

from collections.abc import Callable
from pathlib import Path

from steps.base import elsewhere
from steps.base.errors import UserError
from steps.base.record import Manifest, Record, canonical_json, sha256_file
from steps.plan.plan import Job

OTHER_CODE = "made by other code than today's"


def complaints_of(job: Job, root: Path, code: str) -> list[str]:
    """What is wrong with one job's output, one phrase each; `code` is today's digest."""
    return complaints_at(job, root.joinpath, code)


def complaints_at(job: Job, place: Callable[[str], Path], code: str) -> list[str]:
    """The same for results that lie elsewhere. `place`: where a path of the plan is."""
    try:
        manifest = Manifest.read(place(job.output))
        record = Record.read(place(job.output))
    except UserError as error:
        return [str(error)]
    found = list(manifest.damage())
    if canonical_json(manifest.config) != job.config:
        found.append("made with another configuration than the plan's")
    if record.code != code:
        found.append(OTHER_CODE)
    for role, path in job.inputs.items():
        source = place(path)
        if not source.is_file():
            found.append(f"its input {role} ({path}) is missing")
        elif manifest.inputs.get(role) not in {sha256_file(source), *elsewhere.digests(source)}:
            found.append(f"its input {role} ({path}) is not what it was made from")
    return found
