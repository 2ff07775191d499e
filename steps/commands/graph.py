"""`./reproduce plan --graph`: the plan's steps and what each needs, as a Mermaid flowchart."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from steps.plan.plan import Job, Plan
from steps.plan.registry import STEPS

Edge = tuple[str, str]


def flowchart(plan: Plan) -> str:
    """One node per step with its number of jobs, in a frame per stage.

    A line leads from a step to those that read its results, a dashed one to those that only wait
    for them. What a job also gets by way of another of its inputs isn't drawn.
    """
    counts = Counter(job.step for job in plan.jobs)
    read, waited = _edges(plan.jobs)
    steps = sorted(counts, key=list(STEPS).index)
    lines = ["flowchart LR"]
    for stage, members in groupby(steps, key=lambda step: STEPS[step].stage):
        nodes = [_node(step, counts[step]) for step in members]
        framed = [f"  subgraph {stage}_stage[{stage}]", *(f"  {node}" for node in nodes), "  end"]
        lines += framed if len(nodes) > 1 else nodes
    lines += [f"  {start} --> {end}" for start, end in _sorted(read, steps)]
    lines += [f"  {start} -.-> {end}" for start, end in _sorted(waited - read, steps)]
    return "\n".join(lines)


def _node(step: str, count: int) -> str:
    return f'  {step}["{step}<br>{count} job{"s" if count > 1 else ""}"]'


def _sorted(edges: set[Edge], steps: Sequence[str]) -> list[Edge]:
    return sorted(edges, key=lambda edge: tuple(map(steps.index, edge)))


def _edges(jobs: Sequence[Job]) -> tuple[set[Edge], set[Edge]]:
    """Pairs of steps: the results of one are read by the other; it only waits for them."""
    made = {job.output: job for job in jobs}
    above: dict[str, set[str]] = {}
    read: set[Edge] = set()
    waited: set[Edge] = set()
    for job in jobs:
        inputs = [path for path in job.inputs.values() if path in made]
        direct = {*inputs, *(path for path in job.gates if path in made)}
        reached = {far for path in direct for far in above[path]}
        above[job.output] = direct | reached
        for path in direct - reached:
            (read if path in inputs else waited).add((made[path].step, job.step))
    return read, waited
