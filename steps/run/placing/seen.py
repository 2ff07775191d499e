"""What a node is asked before a run, what it answers, and what of that keeps a run from starting.

The same questions serve `./reproduce doctor` (steps/commands/doctor/nodes.py).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import Field

from steps.base.strict import NotNegative, Strict
from steps.config.accelerators import Vendor
from steps.machine.probes.differs import listing
from steps.machine.probes.values import Accelerator
from steps.machine.runtime.image import Image
from steps.run.engines.accelerators import taken

CLOCK_SKEW_S = 30.0
"""Clocks that differ by more put a node's log lines, and the times of its files, elsewhere."""

FREE_GB = 5.0
"""What a node needs for compiled kernels, logs and temporary files of eight engines."""


class Question(Strict):
    """`hold`: keep other runs from the node until its agent ends. `vendors`: whose accelerators are
    listed. `container`: the JSON of ContainerSettings, and `image`: what engines run in there;
    empty for engines of the checkout's own environment. `weights`: the sha256 of a manifest, by its
    path in the checkout.
    """

    hold: bool = True
    vendors: tuple[Vendor, ...] = ()
    image: Image | None = None
    container: str = ""
    weights: dict[str, str] = Field(default_factory=dict)


class Seen(Strict):
    """One node's answer.

    `name`: its own. `identity`: of the running machine, the same by whichever name it is reached.
    `peer`: the address by which it knows the machine that asks; "" if nothing says. `held`: whether
    another run has the node. `image`: whether it is there; None: none was asked for. `engine`: why
    the container engine can't be used, or "". `weights`: what is wrong with them, by path, "" if
    nothing, None if they aren't there. `commit`, `changed`: of the checkout. `clock_s`: its time,
    of the epoch. `free_gb`: of the checkout's results.
    """

    name: str
    identity: str
    peer: str
    held: bool
    accelerators: tuple[Accelerator, ...]
    problems: tuple[str, ...]
    image: bool | None
    engine: str
    weights: dict[str, str | None]
    commit: str | None
    changed: bool | None
    clock_s: float
    free_gb: float


class Begin(Strict):
    """Start `count` engines, numbered from `first`, which connect to LoadGen's process; none: only
    try whether it can be reached.

    `variables`: by which a scheduler says what accelerators the job has on the node; the agent adds
    them, as a container doesn't inherit any.
    """

    host: str
    port: NotNegative
    key: str
    first: NotNegative
    count: NotNegative
    variables: dict[str, str] = Field(default_factory=dict)


class Began(Strict):
    """`error`: why they couldn't be started, None if they were."""

    error: str | None = None


class Complaint(NamedTuple):
    """`fatal`: it keeps a run from starting."""

    fatal: bool
    text: str


def complaints(
    answers: Mapping[str, Seen], skew_s: Mapping[str, float], own_commit: str | None
) -> Iterator[Complaint]:
    """What is wrong with nodes, by their names here, and how they differ from each other.

    `skew_s`: how far each clock is ahead of this machine's. `own_commit`: of the checkout here.
    """
    twice = _twice(answers)
    for names in twice:
        text = f"{' and '.join(names)} are one machine; name every node once in cluster.hosts"
        yield Complaint(True, text)
    for name, seen in answers.items():
        if seen.held and not any(name in names for names in twice):  # one has it of the two
            text = f"{name}: another run has it; wait for its end, or leave it out"
            yield Complaint(True, text)
        yield from _alone(name, seen)
        if abs(skew_s.get(name, 0.0)) > CLOCK_SKEW_S:
            yield Complaint(
                True,
                f"{name}: its clock is {skew_s[name]:+.0f} s off this machine's; set it "
                "(timedatectl, chronyc makestep)",
            )
    yield from _differing(answers, own_commit)


def _twice(answers: Mapping[str, Seen]) -> list[list[str]]:
    """Names of one machine, where it has several."""
    by_machine: dict[str, list[str]] = {}
    for name, seen in answers.items():
        by_machine.setdefault(seen.identity, []).append(name)
    return [names for names in by_machine.values() if len(names) > 1]


def _alone(name: str, seen: Seen) -> Iterator[Complaint]:
    if said := taken(seen.accelerators):
        yield Complaint(True, f"{name}: {said}")
    if seen.engine:
        yield Complaint(True, f"{name}: {seen.engine}")
    for path, wrong in seen.weights.items():
        if wrong:
            yield Complaint(True, f"{name}: {path} {wrong}")
    if seen.free_gb < FREE_GB:
        yield Complaint(
            True,
            f"{name}: {seen.free_gb:.1f} GB are free for results/, and engines need {FREE_GB:g}; "
            "free some",
        )


ALIKE = {"driver": True, "firmware": False}
"""What nodes of one model have to agree on, and whether a difference keeps a run from starting."""


def _differing(answers: Mapping[str, Seen], own_commit: str | None) -> Iterator[Complaint]:
    """Nodes whose software isn't that of the others: a result would be of both."""
    for field, fatal in ALIKE.items():
        for model, found in _by_model(answers, field).items():
            yield from _odd(found, field, model, fatal)
    commits = {name: seen.commit for name, seen in answers.items() if seen.commit}
    for name, commit in commits.items():
        if own_commit is not None and commit != own_commit:
            yield Complaint(
                True,
                f"{name}: its checkout is at commit {commit[:12]}, this one at {own_commit[:12]}; "
                "update it",
            )


def _by_model(answers: Mapping[str, Seen], field: str) -> dict[str, dict[str, str]]:
    """By the accelerators' model: what each node has of a field, as far as a tool says it."""
    found: dict[str, dict[str, str]] = {}
    for name, seen in answers.items():
        values = sorted({str(v) for one in seen.accelerators if (v := getattr(one, field))})
        if values:
            model = seen.accelerators[0].model or "accelerators"
            found.setdefault(model, {})[name] = " and ".join(values)
    return found


def _odd(found: Mapping[str, str], field: str, model: str, fatal: bool) -> Iterator[Complaint]:
    counted = Counter(found.values())
    if len(counted) < 2:
        return
    usual = counted.most_common(1)[0][0]
    for name, value in found.items():
        if value != usual:
            yield Complaint(
                fatal,
                f"{name}: {field} {value} on {model}, the others have {usual}; make them alike",
            )


def in_a_line(seen: Seen, skew_s: float) -> Sequence[str]:
    """The cells of a node's row in a table: see HEADERS."""
    found = seen.accelerators
    clocks = {_clock(one) for one in found}
    modes = {"/".join(filter(None, (one.compute_partition, one.memory_partition))) for one in found}
    return (
        listing(found) if found else "none",
        _one(modes),
        _one(clocks),
        _one({one.driver for one in found}),
        _one({one.firmware for one in found}),
        {None: "", True: "there", False: "missing"}[seen.image],
        "" if seen.commit is None else seen.commit[:8] + ("*" if seen.changed else ""),
        _state(seen.weights),
        f"{skew_s:+.1f} s",
        f"{seen.free_gb:.0f} GB",
    )


HEADERS = (
    *("accelerators", "modes", "clocks", "driver", "firmware", "image", "checkout"),
    *("weights", "clock", "free"),
)


def _state(weights: Mapping[str, str | None]) -> str:
    if None in weights.values():
        return "missing"
    return "damaged" if any(weights.values()) else ("whole" if weights else "")


def _clock(one: Accelerator) -> str:
    highest = f"{one.max_clock_mhz} MHz" if one.max_clock_mhz else ""
    return " ".join(filter(None, (one.performance_level, highest)))


def _one(values: "set[str] | set[str | None]") -> str:
    said = sorted({value for value in values if value})
    return " and ".join(said)
