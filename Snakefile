# The flow, in data order. The plan (./reproduce makes and freezes it) says which jobs there are;
# the rules say how a job is run. steps/plan/registry.py is the table behind both.
from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"
include: "workflow/rules/messages.smk"
include: "workflow/rules/steps.smk"


rule all:
    default_target: True
    input:
        judging.packaged(PLAN),


# All that is measured, and the verdicts on it: as far as it goes while one doesn't hold.
rule judged:
    input:
        sorted(judging.judged(PLAN)),


onstart:
    due = [str(job.output[0]) for job in workflow.dag.needrun_jobs() if job.output]
    if reason := refusal(
        Path(workflow.configfiles[0]),
        Path(workflow.basedir),
        missing_here(PLAN),
        due,
    ):
        print(f"error: {reason}", file=sys.stderr)
        raise WorkflowError(reason)
    print(
        f"{PLAN.experiment}: {len(due)} of {len(PLAN.jobs)} jobs to run", flush=True
    )
    for line in judging.told(
        PLAN, {path: DUE[path] for path in due if path in DUE}
    ):
        print(f"  {line}", flush=True)
    try:
        restore(PLAN, due, Path(workflow.basedir))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise WorkflowError(str(error))
    if PLAN.scheduler.name == "local":
        runs = [JOBS[path] for path in due if path in JOBS]
        if sentence := asked(PLAN.requirements, runs, busy_share):
            print(f"{PLAN.experiment}: {sentence}", flush=True)
