# What Snakemake says to its log and the profile's quiet keeps from a user.
from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.logging import logger

from steps.base.deaths import Deaths


def tell_of_nothing(record):
    """A log filter: the profile is quiet, and onstart isn't called when there is nothing to do."""
    if record.getMessage() == NOTHING_TO_BE_DONE_MSG:
        print(f"{PLAN.experiment}: nothing to do", flush=True)
    return True


def tell_of_refusal(record):
    """The same for a job that wasn't submitted; what becomes of the others is told elsewhere."""
    if reason := scheduling.refused(getattr(record, "rule_msg", None) or ""):
        print(
            f"error: {record.rule_name}: Slurm refused the job: {reason}",
            file=sys.stderr,
        )
    return True


DEATHS = Deaths()


def tell_of_death(record):
    """The same for a job whose process couldn't say what ended it."""
    if sentence := DEATHS.heard(record):
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    return True


logger.addFilter(tell_of_nothing)
logger.addFilter(tell_of_refusal)
logger.addFilter(tell_of_death)
