"""What else happened on a machine while a run was measured on it."""

from typing import Literal

from steps.base.strict import Fraction, NotNegative, Positive, PositiveNumber, Strict

Cause = Literal[
    "processes", "steal", "memory", "swap", "stopped", "still", "throttle", "errors", "compiled"
]
"""What disturbs: `still` is a machine on which nothing ran for a while, the journal neither."""

STEPS: Literal["steps"] = "steps"
"""In a cause's place: the engine's steps alone, with nothing else that would explain them."""


class Cost(Strict):
    """What the engine's steps say of a disturbance: `steps` of them took many times their median,
    the longest `times`; all together took `lost_s` longer than so many usual ones."""

    steps: NotNegative
    times: float
    lost_s: float

    def __str__(self) -> str:
        many = f"{self.times:,.0f} times its median"
        if self.steps == 1:
            return f"a step took {many} then"
        return f"{self.steps:,} steps took up to {self.times:,.0f} times their median then"


class Disturbance(Strict):
    """`words` without the times, which are s since the test's begin; `cost` None: no step in the
    journal was slow.
    """

    by: Cause | Literal["steps"]
    words: str
    from_s: float
    to_s: float
    cost: Cost | None = None

    def __str__(self) -> str:
        text = f"from second {self.from_s:.0f} to {self.to_s:.0f} {self.words}"
        return f"{text}; {self.cost}" if self.cost and self.by != STEPS else text


class WindowBounds(Strict):
    """From where on what the journal holds is a disturbance: conf/window.yaml.

    `processes`: share of the run's cores that other processes take. `steal`: share of them that the
    hypervisor takes. `memory`: share of a second in which every process waited for it. `swap_mb`:
    MB swapped in and out in a second. `least_s`: seconds that `processes`, `steal` and `memory`
    have to go on. `bridge_s`: two of a kind with fewer seconds between them are one. `still_s`:
    seconds between two lines of the journal, from which on nothing ran on the machine. `harmless`:
    reasons that slow an accelerator by its settings or at its full power, not by a fault.
    `step_times`: medians from which on a step counts as a disturbance's cost. `alone_times`:
    medians from which on a step is one by itself, if it took `alone_s`. `alone_s`: seconds that
    such a step takes at least. `most`: how many are kept; of more, the longest.
    """

    processes: Fraction
    steal: Fraction
    memory: Fraction
    swap_mb: PositiveNumber
    least_s: PositiveNumber
    bridge_s: PositiveNumber
    still_s: PositiveNumber
    harmless: tuple[str, ...]
    step_times: PositiveNumber
    alone_times: PositiveNumber
    alone_s: PositiveNumber
    most: Positive


class Window(Strict):
    """The machine's part in a run; no disturbances: it was clean."""

    disturbances: tuple[Disturbance, ...]

    @property
    def clean(self) -> bool:
        return not self.disturbances
