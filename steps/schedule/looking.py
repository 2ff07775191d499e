"""Who knows whether a plan's cells can be run: this machine, or the scheduler that they go to."""

from steps.config.scheduler import Slurm
from steps.machine.look import Look
from steps.plan.plan import Plan
from steps.plan.unsupported import Missing, unseen


def missing_of(plan: Plan) -> Missing:
    """Raises UserError if a scheduler doesn't answer. Kubernetes says it when Jobs are made."""
    if isinstance(plan.scheduler, Slurm):
        from steps.schedule.slurm import missing

        return missing(plan, plan.scheduler)
    return Look().missing if plan.scheduler.name == "local" else unseen


def missing_here(plan: Plan) -> Missing:
    """The same without asking a scheduler: a plan is shown where there is none."""
    return Look().missing if plan.scheduler.name == "local" else unseen
