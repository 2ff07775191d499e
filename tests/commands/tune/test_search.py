"""The search on simulated engines: what it finds, and what it says when there is nothing."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from bench.queueing_kinds import BY_NAME
from bench.simulated_engine import (
    Answers,
    Behaviour,
    Kind,
    SimulatedProber,
    full_run,
    tokens_of,
    until,
)
from steps.base.errors import UserError
from steps.commands.tune.arrivals import Length
from steps.commands.tune.config import load
from steps.commands.tune.infeasible import InfeasibleError
from steps.commands.tune.measure import Limits, Measurement, Probe
from steps.commands.tune.search import Outcome, Search

SEED = 18209322760996052031
SETTINGS = load().search.model_copy(update={"explore_s": 15.0, "refine_s": (20.0, 40.0)})
LENGTH = Length(SEED, 1024, 100, 60.0)
SLOTS = Kind(
    *("slots", Behaviour(0.02, slots=48), Answers(60, 0.5)),
    *(Limits(ttft=1.0, tpot=0.2), LENGTH),
)
SLOW = Kind(
    *("slow slots", Behaviour(0.05, slots=16), Answers(80, 0.5)),
    *(Limits(ttft=2.0, tpot=0.2), replace(LENGTH, sample_count=512)),
)
LINEAR = Kind(
    *("linear", Behaviour(0.01, per_running_s=4e-4, slots=512), Answers(60, 0.5)),
    *(Limits(ttft=1.0, tpot=0.04), LENGTH),
)


@dataclass
class Told:
    """A prober that answers from what was measured before, and counts what it had to measure."""

    prober: SimulatedProber
    known: dict[str, Measurement] = field(default_factory=dict)
    made: int = 0

    def measure(self, probe: Probe) -> Measurement:
        key = probe.model_dump_json()
        if key not in self.known:
            self.made += 1
            self.known[key] = self.prober.measure(probe)
        return self.known[key]


def conduct(
    search: Search, measure: Callable[[Probe], Measurement], most: int | None = None
) -> Outcome | None:
    """To its end, or until it was told so many probes."""
    steps = search.run()
    told = 0
    try:
        asked = next(steps)
        while most is None or told < most:
            told += 1
            asked = steps.send(measure(asked))
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome
    return None


def search_of(
    kind: Kind, guess: float, *, known: bool = True, budget_s: float | None = None
) -> Search:
    traffic = partial(tokens_of, kind, seed=kind.length.seed)
    return Search(SETTINGS, kind.length, kind.limits, guess, budget_s, traffic)


def limit_of(kind: Kind) -> float:
    """By trying every rate, half a percent apart."""
    rates = [1.005**step for step in range(900)]
    low, high = 0, len(rates) - 1
    while high - low > 4:
        middle = (low + high) // 2
        held = full_run(kind, rates[middle], (0,), watched=False).valid
        low, high = (middle, high) if held else (low, middle)
    near = range(max(low - 6, 0), high + 6)
    return max(rates[i] for i in near if full_run(kind, rates[i], (0,), watched=False).valid)


@pytest.mark.parametrize(
    ("kind", "off"),
    [(SLOW, 0.01), (SLOW, 100), (LINEAR, 0.6)],
    ids=["100 times too low", "100 times too high", "near"],
)
def test_the_limit_is_found_from_any_guess(kind: Kind, off: float) -> None:
    limit = limit_of(kind)
    prober = SimulatedProber(kind, 1)
    outcome = conduct(search_of(kind, off * limit), prober.measure)
    assert outcome is not None
    assert outcome.final.valid
    assert outcome.final.probe.queries == kind.length.queries(outcome.final.probe.rate)
    assert outcome.final.probe.rate == pytest.approx(limit, rel=0.02)
    again = full_run(kind, outcome.final.probe.rate, (7,), watched=False)
    assert again.valid, "without noise, another run of the same rate holds too"


def test_probes_that_miss_few_beyond_the_limit_are_not_repeated() -> None:
    """Eight nodes, one slow: at 1.35 times the limit forty seconds miss a few percent."""
    kind = BY_NAME["slow node of eight"]
    traffic = partial(tokens_of, kind, seed=kind.length.seed)
    search = Search(load().search, kind.length, kind.limits, 6.4, traffic=traffic)
    outcome = conduct(search, SimulatedProber(kind, 0).measure)
    assert outcome is not None and outcome.final.valid
    assert outcome.final.probe.rate == pytest.approx(15.86, rel=0.01)


def test_an_engine_that_never_meets_a_limit_is_told_with_what_it_reaches() -> None:
    slow = replace(LINEAR, behaviour=Behaviour(0.06), name="slow")
    with pytest.raises(InfeasibleError) as told:
        conduct(search_of(slow, 20.0), SimulatedProber(slow, 1).measure)
    assert str(told.value).startswith("no rate meets TPOT 40 ms: at ")
    assert "its p99 is 60 ms" in str(told.value)


def test_bursts_of_noise_at_any_rate_are_told() -> None:
    stalling = replace(
        *(LINEAR,), behaviour=replace(LINEAR.behaviour, burst=(3.0, 1.5, 20.0)), name="stalling"
    )
    with pytest.raises(UserError) as told:
        conduct(search_of(stalling, 30.0), SimulatedProber(stalling, 1).measure)
    assert "queries a second its p99 is" in str(told.value)


def test_an_engine_that_no_rate_loads_ends_the_search() -> None:
    endless = replace(LINEAR, behaviour=Behaviour(0.001, slots=1 << 20, prefills=1 << 20))
    short = SETTINGS.model_copy(update={"explore_limit": 3, "explore_s": 1.0})
    search = replace(search_of(endless, 1.0), settings=short)
    with pytest.raises(UserError, match="still not bracketed"):
        conduct(search, SimulatedProber(endless, 1).measure)


def test_a_budget_is_kept_and_still_has_a_result() -> None:
    prober = SimulatedProber(SLOTS, 1)
    outcome = conduct(search_of(SLOTS, 20.0, budget_s=240.0), prober.measure)
    assert outcome is not None
    assert outcome.final.valid
    assert prober.measured_s <= 240 * 1.1


@dataclass
class Starting:
    """A prober whose engine takes its time to start, before every probe."""

    prober: SimulatedProber
    start_s: float
    cut_s: Callable[[Probe], float | None] = lambda probe: None
    spent_s: float = 0.0

    def measure(self, probe: Probe) -> Measurement:
        measured = replace(self.prober.measure(probe), start_s=self.start_s)
        cut_s = self.cut_s(probe)
        if cut_s is not None and measured.measured_s > cut_s:
            seen = until(measured.samples, cut_s)
            measured = replace(measured, samples=seen, measured_s=cut_s, ended="cut")
        self.spent_s += measured.measured_s + self.start_s
        return measured


@pytest.mark.parametrize("guess", [4.0, 20.0, 150.0])
@pytest.mark.parametrize("budget_s", [75.0, 120.0, 200.0])
def test_a_budget_holds_starts_and_the_last_run_too(budget_s: float, guess: float) -> None:
    """Runs of about 30 s behind an engine that starts in 9."""
    kind = replace(SLOTS, length=replace(LENGTH, sample_count=512, min_duration_s=20.0))
    prober = Starting(SimulatedProber(kind, 1), 9.0)
    settings = load().search
    search = replace(search_of(kind, guess, budget_s=budget_s), settings=settings)
    prober.cut_s = search.cut_s
    outcome = None
    try:
        outcome = conduct(search, prober.measure)
    except UserError as error:
        assert "raise --budget" in str(error)
        assert guess == 150.0, "three times beyond the limit, which costs a probe that floods"
    assert prober.spent_s <= 1.05 * budget_s
    if outcome is not None:
        held = [probe for probe in search.probes if probe.valid]
        assert outcome.final.probe.rate == max(probe.probe.rate for probe in held)


def test_a_budget_without_room_for_a_run_is_told() -> None:
    with pytest.raises(UserError, match="raise --budget"):
        conduct(search_of(SLOTS, 20.0, budget_s=60.0), SimulatedProber(SLOTS, 1).measure)


def test_a_killed_search_goes_on_without_repeating_a_probe() -> None:
    whole = Told(SimulatedProber(SLOTS, 1))
    outcome = conduct(search_of(SLOTS, 12.0), whole.measure)
    assert outcome is not None
    for killed_after in (1, whole.made - 1):
        told = Told(SimulatedProber(SLOTS, 1))
        conduct(search_of(SLOTS, 12.0), told.measure, most=killed_after)
        assert told.made == killed_after
        resumed = conduct(search_of(SLOTS, 12.0), told.measure)
        assert resumed is not None
        assert resumed.final.probe == outcome.final.probe
        assert told.made == whole.made, "nothing was measured twice"


def test_a_forecast_knows_how_sure_it_is() -> None:
    search = search_of(LINEAR, 15.0)
    outcome = conduct(search, SimulatedProber(LINEAR, 1).measure)
    assert outcome is not None
    limit = limit_of(LINEAR)
    assert abs(math.log(outcome.limit.limit / limit)) < 0.02
    assert 0 < outcome.limit.deviation < 0.05
    assert outcome.limit.metric == "tpot"
