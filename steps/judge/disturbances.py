"""The disturbances of a measured window: a function of its journal and the bounds only."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config.results import result_of
from steps.config.run_results import RunResult
from steps.config.window import STEPS, Cause, Cost, Disturbance, Window, WindowBounds
from steps.run.journal.lines import JOURNAL, Journal, Line, Step, read

AROUND_S = 1.0
"""A step belongs to a disturbance at most this far away: lines are a second apart."""

NAMED = 2
"""How many files and reasons a sentence names."""


class Stretch:
    """Consecutive lines that show a cause; `from_s` is that of the line before the first."""

    def __init__(self, from_s: float, line: Line) -> None:
        self.from_s = from_s
        self.lines = [line]

    @property
    def to_s(self) -> float:
        return self.lines[-1].s

    def mean(self, value: Callable[[Line], float | None]) -> float:
        found = [v for line in self.lines if (v := value(line)) is not None]
        return sum(found) / max(len(found), 1)


def differences_of(run: Manifest) -> tuple[str, ...]:
    """Where the run's engine didn't do what it was asked; nothing of a run that didn't ask it."""
    resolved = result_of(run, RunResult).resolved
    return () if resolved is None else resolved.differences


def window_of(run: Manifest, bounds: WindowBounds, say: Callable[[str], None]) -> Window | None:
    """The window of a run, and what disturbed it said; None if it kept no journal, or, with a
    sentence, if the journal doesn't tell: its loss voids no result."""
    kept = result_of(run, RunResult).journal
    if kept is None:
        return None
    try:
        journal = read(run.directory / JOURNAL)
    except UserError as error:
        say(f"warning: {error}")
        return None
    noted_s = journal.lines[-1].s
    if kept.whole_s - noted_s > bounds.still_s:
        say(
            f"warning: the run's journal ends at second {noted_s:.0f} of {kept.whole_s:.0f}: "
            "whether the run was disturbed isn't known"
        )
        return None
    found = window(journal, kept.cores, bounds)
    for disturbance in found.disturbances:
        say(f"the run was disturbed: {disturbance}")
    return found


def window(journal: Journal, cores: int, bounds: WindowBounds) -> Window:
    """`cores`: the number of CPUs that the run may use."""
    found = [*_of_lines(journal.lines, cores, bounds)]
    shared = [_with_cost(one, journal.steps, bounds) for one in found]
    alone = [
        step
        for step in journal.steps
        if step.times >= bounds.alone_times
        and step.took_s >= bounds.alone_s
        and not any(_near(step, one) for one in found)
    ]
    whole = [*shared, *_steps(alone, bounds)]
    whole = sorted(whole, key=lambda one: one.from_s - one.to_s)[: bounds.most]
    return Window(disturbances=tuple(sorted(whole, key=lambda one: (one.from_s, one.by))))


def _of_lines(lines: Sequence[Line], cores: int, bounds: WindowBounds) -> Iterator[Disturbance]:
    """The disturbances without their costs."""
    pairs = list(zip([0.0, *(line.s for line in lines)], lines, strict=False))
    of = f"of {cores} cores" if cores > 1 else "of the core"

    def stretches(shows: Callable[[Line], bool], least_s: float = 0.0) -> Iterator[Stretch]:
        for one in _stretches(pairs, shows, bounds.bridge_s):
            if one.to_s - one.from_s >= least_s:
                yield one

    def disturbance(by: Cause, one: Stretch, words: str) -> Disturbance:
        return Disturbance(by=by, words=words, from_s=round(one.from_s, 1), to_s=round(one.to_s, 1))

    for one in stretches(lambda n: (n.others or 0) >= bounds.processes * cores, bounds.least_s):
        taken = one.mean(lambda n: n.others)
        yield disturbance("processes", one, f"other processes took {taken:.1f} {of}")
    for one in stretches(lambda n: (n.steal or 0) >= bounds.steal * cores, bounds.least_s):
        taken = one.mean(lambda n: n.steal)
        yield disturbance("steal", one, f"the hypervisor took {taken:.1f} {of}")
    for one in stretches(lambda n: (n.memory_pressure or 0) >= bounds.memory, bounds.least_s):
        share = one.mean(lambda n: n.memory_pressure)
        yield disturbance(
            "memory", one, f"every process waited for memory {100 * share:.0f} % of the time"
        )
    for one in stretches(lambda n: (n.swapped_mb or 0) >= bounds.swap_mb):
        rate = one.mean(lambda n: n.swapped_mb)
        yield disturbance("swap", one, f"{rate:,.0f} MB a second were swapped")
    for one in stretches(lambda n: n.stopped > 0):
        most = max(line.stopped for line in one.lines)
        many = "a process of the run was" if most == 1 else f"{most} processes of the run were"
        yield disturbance("stopped", one, f"{many} stopped by a signal")
    for from_s, line in pairs:
        if line.s - from_s >= bounds.still_s:
            yield disturbance(
                "still", Stretch(from_s, line), "nothing ran here, not even the journal"
            )
    yield from _of_accelerators(pairs, bounds)
    yield from _compiled(lines, bounds)


def _stretches(
    pairs: Iterable[tuple[float, Line]], shows: Callable[[Line], bool], bridge_s: float
) -> Iterator[Stretch]:
    current: Stretch | None = None
    for from_s, line in pairs:
        if not shows(line):
            continue
        if current is not None and from_s - current.to_s <= bridge_s:
            current.lines.append(line)
            continue
        if current is not None:
            yield current
        current = Stretch(from_s, line)
    if current is not None:
        yield current


def _of_accelerators(
    pairs: Sequence[tuple[float, Line]], bounds: WindowBounds
) -> Iterator[Disturbance]:
    """Lines without an answer of the tool belong to the next one with an answer."""
    asked: list[tuple[float, Line]] = []
    last_s = 0.0
    for _, line in pairs:
        if line.accelerators:
            asked.append((last_s, line))
            last_s = line.s

    throttled: dict[float, dict[int, set[str]]] = {}
    for (_, line), before in zip(asked, [None, *(line for _, line in asked)], strict=False):
        throttled[line.s] = _throttled(line, before, bounds.harmless)
    for one in _stretches(asked, lambda line: bool(throttled[line.s]), bounds.bridge_s):
        every = [throttled[line.s] for line in one.lines]
        numbers = sorted({n for found in every for n in found})
        reasons = sorted({name for found in every for names in found.values() for name in names})
        yield Disturbance(
            by="throttle",
            words=f"{_named(numbers)} throttled ({', '.join(reasons[:NAMED])})",
            from_s=one.from_s,
            to_s=one.to_s,
        )
    for (_, before), (from_s, line) in pairwise(asked):
        grown = {
            n: (now.errors or 0) - (was.errors or 0)
            for n, (was, now) in enumerate(
                zip(before.accelerators, line.accelerators, strict=False)
            )
            if was.errors is not None and now.errors is not None and now.errors > was.errors
        }
        if grown:
            yield Disturbance(
                by="errors",
                words=f"{_named(sorted(grown), 'had')} {sum(grown.values()):.0f} errors of memory "
                "that can't be corrected",
                from_s=from_s,
                to_s=line.s,
            )


def _throttled(line: Line, before: Line | None, harmless: Sequence[str]) -> dict[int, set[str]]:
    """Reasons by accelerator: those of now, and those that were one since the answer before."""
    found = {}
    for n, device in enumerate(line.accelerators):
        was = before.accelerators[n].violations if before and n < len(before.accelerators) else {}
        grown = {name for name, count in device.violations.items() if count > was.get(name, count)}
        reasons = {*device.throttled, *grown} - set(harmless)
        if reasons:
            found[n] = reasons
    return found


def _named(numbers: Sequence[int], verb: str = "") -> str:
    if len(numbers) == 1:
        return f"accelerator {numbers[0]} {verb or 'was'}"
    return f"accelerators {', '.join(map(str, numbers))} {verb or 'were'}"


def _compiled(lines: Sequence[Line], bounds: WindowBounds) -> Iterator[Disturbance]:
    files = sorted(
        ((at, cache, path) for line in lines for cache, path, at in line.compiled),
    )
    group: list[tuple[float, str, str]] = []
    for file in files:
        if group and file[0] - group[-1][0] > bounds.bridge_s:
            yield _of_files(group)
            group = []
        group.append(file)
    if group:
        yield _of_files(group)


def _of_files(group: Sequence[tuple[float, str, str]]) -> Disturbance:
    caches = " and ".join(sorted({cache for _, cache, _ in group}))
    names = ", ".join(path.rpartition("/")[2] for _, _, path in group[:NAMED])
    more = f" and {len(group) - NAMED} more" if len(group) > NAMED else ""
    many = "a file" if len(group) == 1 else f"{len(group)} files"
    return Disturbance(
        by="compiled",
        words=f"{many} appeared in the cache of {caches} ({names}{more})",
        from_s=max(round(group[0][0], 1), 0.0),
        to_s=max(round(group[-1][0], 1), 0.0),
    )


def _near(step: Step, one: Disturbance) -> bool:
    begun_s = step.s - step.took_s
    return begun_s <= one.to_s + AROUND_S and step.s >= one.from_s - AROUND_S


def _with_cost(one: Disturbance, steps: Sequence[Step], bounds: WindowBounds) -> Disturbance:
    slow = [step for step in steps if step.times >= bounds.step_times and _near(step, one)]
    return one.model_copy(update={"cost": _cost(slow)}) if slow else one


def _cost(slow: Sequence[Step]) -> Cost:
    return Cost(
        steps=len(slow),
        times=round(max(step.times for step in slow), 1),
        lost_s=round(sum(step.took_s * (1 - 1 / step.times) for step in slow), 2),
    )


def _steps(alone: Sequence[Step], bounds: WindowBounds) -> Iterator[Disturbance]:
    """Slow steps that nothing in the journal explains."""
    group: list[Step] = []
    for step in alone:
        if group and step.s - step.took_s - group[-1].s > bounds.bridge_s:
            yield _of_steps(group)
            group = []
        group.append(step)
    if group:
        yield _of_steps(group)


def _of_steps(group: Sequence[Step]) -> Disturbance:
    longest = max(group, key=lambda step: step.took_s)
    times = f"{longest.took_s:.1f} s, {longest.times:,.0f} times the median"
    many = "a step of the engine" if len(group) == 1 else f"{len(group)} steps of the engine"
    upto = "took" if len(group) == 1 else "took up to"
    return Disturbance(
        by=STEPS,
        words=f"{many} {upto} {times}, with nothing else to explain it",
        from_s=max(round(min(step.s - step.took_s for step in group), 1), 0.0),
        to_s=round(max(step.s for step in group), 1),
        cost=_cost(group),
    )
