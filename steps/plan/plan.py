"""The plan: every job with its configuration and inputs, frozen, content-addressed.

Nothing below the plan knows Hydra or `conf/`; reading a plan doesn't load what makes one.
"""

import hashlib
from pathlib import Path

from pydantic import Field, ValidationError

from steps.base.errors import UserError
from steps.base.locks import of_environment
from steps.base.record import canonical_json, sha256_file, write_atomically
from steps.base.strict import Strict
from steps.config.groups import Requirement
from steps.config.runtime import ContainerSettings
from steps.config.scheduler import Scheduler

PLANS = Path("results/plans")


class Job(Strict):
    """One job: `output` is the manifest that stands for it, `config` its canonical JSON.

    `inputs` maps roles to paths of manifests (or files). `gates` are manifests that have to be
    there before it starts and that it doesn't read. `environment` is the directory of the
    virtual environment it runs in. `log` outlives a failed job. `container`: the JSON of the
    ContainerSettings (steps/machine/runtime) of a job that runs in the image that its input
    "environment" stands for; empty for one that runs on the machine itself. `limitation`: why
    Reprise can't execute it, None if it can. `brings`: what the user has to bring for it, None if
    nothing. `programs`: what has to be installed on the machine it
    runs on, each with the sentence that says so.
    """

    step: str
    key: str
    config: str
    inputs: dict[str, str]
    environment: str
    output: str
    log: str
    gates: tuple[str, ...] = ()
    container: str = ""
    limitation: str | None = None
    brings: str | None = None
    programs: dict[str, str] = Field(default_factory=dict)

    @property
    def launcher(self) -> tuple[str, ...]:
        """What takes the arguments of Python: an environment's, or that of the container."""
        python = f"{self.environment}/bin/python"
        if not self.container:
            return (python,)
        return (python, "-m", "steps.machine.runtime", self.inputs["environment"], self.container)


class Plan(Strict):
    """All jobs of an experiment, in data order, the machines that they need, and who places them.

    The scheduler is no part of any job: what one made is valid for another. `sudo`: whether clocks
    may be set for a run.
    """

    experiment: str
    jobs: tuple[Job, ...]
    requirements: tuple[Requirement, ...]
    scheduler: Scheduler
    sudo: bool = False

    @property
    def stop_limit_s(self) -> float:
        """How long its containers may take to end; 0 without any."""
        found = {job.container for job in self.jobs if job.container}
        settings = [ContainerSettings.model_validate_json(text) for text in found]
        return max((one.stop_limit_s for one in settings), default=0.0)


def environment_directory(root: Path, name: str) -> str:
    """Where the environment of `envs/<name>.lock` lives: named by the content of its locks."""
    digests = []
    for own in of_environment(name):
        lock = root / "envs" / f"{own}.lock"
        if not lock.is_file():
            known = ", ".join(sorted(path.stem for path in lock.parent.glob("*.lock")))
            raise UserError(f"environment {name!r} has no envs/{own}.lock; there are {known}")
        digests.append(sha256_file(lock))
    if len(digests) > 1:
        digests = [hashlib.sha256(" ".join(digests).encode()).hexdigest()]
    return f".envs/{name}-{digests[0][:12]}"


def freeze(plan: Plan, root: Path) -> Path:
    """Write `results/plans/<first 12 hex digits of its sha256>.json`; same plan, same file."""
    text = canonical_json(plan.model_dump(mode="json"))
    path = root / PLANS / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    if not path.is_file() or sha256_file(path)[:12] != path.stem:
        write_atomically(path, text)
    return path


def load(path: Path) -> Plan:
    """Read a frozen plan.

    Raises UserError if its content isn't what its name says, or of another version's form.
    """
    if not path.is_file():
        raise UserError(f"there is no plan {path}; ./reproduce makes one")
    if sha256_file(path)[:12] != path.stem:
        raise UserError(f"{path} was changed after it was frozen; delete it and run ./reproduce")
    try:
        return Plan.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise UserError(
            f"{path} was frozen by another version of Reprise; ./reproduce freezes it again"
        ) from error
