"""What Snakemake's arguments ask for, where they are of the kinds that are understood here.

Our records know whether any of it is due, so a repeated command starts no Snakemake.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steps.base.arguments import nearest
from steps.base.errors import UserError
from steps.plan.due import judged, packaged, wanted
from steps.plan.plan import Plan

UNTIL = frozenset(("--until", "-U"))
FLAGS = frozenset(
    (
        *("--keep-going", "-k", "--printshellcmds", "-p", "--verbose", "--nocolor"),
        *("--show-failed-logs", "--debug-dag"),
    )
)
ONE_VALUE = frozenset(
    (
        *("--cores", "-c", "--jobs", "-j", "--retries", "-T", "--latency-wait", "-w"),
        *("--slurm-init-seconds-before-status-checks", "--seconds-between-status-checks"),
    )
)
SEVERAL_VALUES = frozenset(("--resources", "--res", "--set-resources", "--quiet", "-q"))
"""Options that say how jobs are run; none makes a job due or keeps one from being so."""


@dataclass(frozen=True)
class PassedOn:
    """`options`: how; `outputs`: what, files of the plan."""

    options: tuple[str, ...]
    outputs: tuple[str, ...]
    """Empty: the package, for which everything else is made."""


def understood(words: Sequence[str], plan: Plan, here: Sequence[str] = ()) -> PassedOn | None:
    """None for words that only Snakemake understands, or refuses. `here`: what is asked for where
    they name no target, if it isn't the whole plan. Raises UserError for a step that isn't in it.
    """
    options, steps, targets = list[str](), list[str](), list[str]()
    left = list(words)
    while left:
        word = left.pop(0)
        name, is_assigned, value = word.partition("=")
        if not word.startswith("-"):
            targets.append(word)
        elif name in UNTIL:
            named = [value] if is_assigned else _values(left)
            if not named:
                return None
            steps += named
        elif name in FLAGS and not is_assigned:
            options.append(word)
        elif name in ONE_VALUE:
            options += [word] if is_assigned or not left else [word, left.pop(0)]
        elif name in SEVERAL_VALUES:
            options += [word] if is_assigned else [word, *_values(left)]
        else:
            return None
    outputs = _named(targets, plan) if targets else list(here)
    if outputs is None:
        return None
    if steps:
        outputs = _until(steps, plan, wanted(plan, outputs or packaged(plan)))
    return PassedOn(tuple(options), tuple(outputs))


def _values(left: list[str]) -> list[str]:
    """Takes the words up to the next option."""
    found = list[str]()
    while left and not left[0].startswith("-"):
        found.append(left.pop(0))
    return found


def _named(targets: Sequence[str], plan: Plan) -> list[str] | None:
    """Their files; None if one is neither a file of the plan nor a rule that asks for some."""
    rules: Mapping[str, Sequence[str]] = {"all": packaged(plan), "judged": sorted(judged(plan))}
    files = {job.output for job in plan.jobs}
    found = list[str]()
    for target in targets:
        if target not in rules and target not in files:
            return None
        found += rules.get(target, [target])
    return found


def _until(words: Sequence[str], plan: Plan, within: set[str]) -> list[str]:
    """Outputs of these steps, and files, `within` what is asked for."""
    jobs = [job for job in plan.jobs if job.output in within]
    steps, files = dict.fromkeys(job.step for job in jobs), {job.output for job in jobs}
    for word in words:
        if word not in steps and word not in files:
            raise UserError(
                f"--until {word}: what is asked for has no such step{nearest(word, steps)}; it has "
                f"{', '.join(steps)}"
            )
    return [job.output for job in jobs if job.step in words or job.output in words]
