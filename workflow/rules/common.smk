# The only helpers: everything that a rule asks of the plan.
import re
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

from snakemake.settings.types import RerunTrigger

sys.path.insert(0, workflow.basedir)

from steps.plan import due as judging
from steps.plan import plan as plans
from steps.plan import registry
from steps.plan.code import codes
from steps.base import threads, variables
from steps.base.errors import UserError
from steps.base.record import canonical_json
from steps.base.version import Version
from steps.machine.environment import restore
from steps.plan.unsupported import asked, refusal
from steps.run.engines.pinning import busy_share
from steps.schedule import launching
from steps.schedule import resources as scheduling
from steps.schedule.looking import missing_here

if not workflow.configfiles:
    raise WorkflowError(
        "no plan was given: run ./reproduce, or snakemake --configfile results/plans/NAME.json"
    )
try:
    PLAN_FILE = Path(workflow.configfiles[0])
    PLAN = plans.load(PLAN_FILE)
except UserError as error:
    raise WorkflowError(str(error))

JOBS = {job.output: job for job in PLAN.jobs}
# Of what a scheduler is asked for (steps/schedule/slurm_run.py); empty: all of the plan's.
RESOURCES = scheduling.Resources(
    PLAN, filter(None, config.get("systems", "").split(","))
)
CODES = codes(Path(workflow.basedir))

# Our records say what is due (steps/plan/due.py), and Snakemake does that: what it has noted of
# times, parameters and code is of this directory and no other, and decides nothing. A scheduler's
# job, on its node, does what it was submitted for.
DUE = {}
if workflow.is_main_process:
    DUE = judging.due(PLAN, Path(workflow.basedir), CODES)

# A scheduler's job reads this again on its node, and has the node's cores there.
CORES = workflow.resource_settings.cores or 1
# A command that waits for a pod needs no core.
WHOLE_MACHINE = 1 if PLAN.scheduler.name == "kubernetes" else CORES

RUN = (
    "{params.place:q} {params.launcher:q} -m {params.module} --config {params.config:q} --input {params.inputs:q}"
    " --output {output.manifest:q} --log {log:q} --code {params.code:q} --origin {params.origin:q}"
)

# Snakemake exports a job's cores as threads of arithmetic, by six of their names. A step has one, until
# it takes more. And its parent is snakemake itself, not a shell: that learns of the signal that ends a
# step, and no step outlives it.
shell.prefix(f"set -euo pipefail; {threads.prefix(1)}exec ")


wildcard_constraints:
    experiment=r"[^/]+",
    cell=r"[^/]+/[^/]+/[^/]+/[^/]+/[^/]+(/TEST\d+)?",
    name=r".+",


def pattern(template, step):
    return template[registry.STEPS[step].stage].replace("{step}", step)


def manifest(step):
    return f"{pattern(registry.FOLDER, step)}/manifest.json"


def logfile(step):
    return pattern(registry.LOG, step)


def announcement(step):
    """What is said when a job of the step starts; Snakemake writes its name into it."""
    names = re.findall(r"{(cell|name|experiment)}", pattern(registry.FOLDER, step))
    return f"{registry.STEPS[step].says} {{wildcards.{names[-1]}}}"


@cache
def version():
    """Asked of git when the first job starts: a run without any doesn't pay for it."""
    return asdict(Version.of(Path(workflow.basedir)))


def origin(step):
    """What a record says of who made it."""

    def said(job):
        code = CODES[step].digest
        return canonical_json(
            {"version": version(), "code": code, "container": job.container}
        )

    return of_job(step, said)


def of_job(step, read):
    """An input or params function: what `read` takes from the job that the wildcards name."""

    def function(wildcards):
        return read(JOBS[manifest(step).format(**wildcards)])

    return function


def needs(step):
    """Inputs and gates. Of a job that isn't due they are of no account, whatever becomes of them; one
    that is due runs, and Snakemake hears of it here, where it asks for the first time.
    """

    def read(job):
        workflow.dag_settings.rerun_triggers = frozenset([RerunTrigger.MTIME])
        paths = [*job.inputs.values(), *job.gates]
        if job.output not in DUE:
            return [ancient(path) for path in paths]
        workflow.dag.forcefiles.add(job.output)
        return paths

    return of_job(step, read)


def resources(step):
    """What the plan's scheduler is asked for; on one machine, who has the accelerators."""

    def value(name):
        return of_job(step, lambda job: RESOURCES.of(job).get(name))

    names = scheduling.asked_for(step, PLAN.scheduler.name)
    return {name: value(name) for name in names}


def arguments(step):
    """Parameters of the step's command, as text: Snakemake compares nothing else reliably."""
    return {
        "module": registry.STEPS[step].module,
        "config": of_job(step, lambda job: job.config),
        "inputs": of_job(
            step, lambda job: [f"{role}={path}" for role, path in job.inputs.items()]
        ),
        "launcher": of_job(step, lambda job: list(job.launcher)),
        "code": sorted(CODES[step].files),
        "origin": origin(step),
        "place": place(step),
    }


def place(step):
    """What comes before the command: what drops the shell's variables, its gates, and where it is
    run. Snakemake doesn't compare between runs what is worked out from `threads`, and where a job ran
    changes nothing of its result.
    """

    def function(wildcards, threads):
        job = JOBS[manifest(step).format(**wildcards)]
        words = variables.words(launching.cleared(job, PLAN))
        return [*words, *launching.launcher(job, PLAN, PLAN_FILE)]

    return function
