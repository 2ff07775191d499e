"""Dispatch as bookkeeping: who is given what, whatever happens in between."""

from array import array
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.run.engines.engine import Batch
from steps.run.sut.dispatch import Dispatcher, Replica

PROMPT_TOKENS = 10
MOVES = st.lists(st.tuples(st.sampled_from("adacl"), st.integers(0, 40)), max_size=60)


def dispatcher(places: list[int], rates: list[float], *, server: bool) -> Dispatcher:
    replicas = [Replica(p, max(1, p // 4), rate) for p, rate in zip(places, rates, strict=True)]
    return Dispatcher(replicas, [PROMPT_TOKENS] * 7, prompt_weight=0.02, latency_bound=server)


def counts(subject: Dispatcher) -> dict[int, int]:
    """Of what each engine is given now."""
    return {n: len(numbers) for n, (numbers, _) in subject.assign(0.0).items()}


def answers(numbers: Iterable[int], tokens: int = 5) -> Batch:
    return Batch.of([(number, array("i", [0] * tokens)) for number in numbers])


@given(MOVES, st.lists(st.integers(1, 5), min_size=2, max_size=4), st.booleans())
def test_no_sample_is_lost_or_answered_twice(
    moves: list[tuple[str, int]], places: list[int], server: bool
) -> None:
    subject = dispatcher(places, [10.0 + n for n in range(len(places))], server=server)
    added, answered, held, now = 0, [], {n: {} for n in range(len(places))}, 0.0
    dead: dict[int, dict[int, int]] = {}

    def assign() -> None:
        for n, samples in subject.assign(now).items():
            assert subject.replicas[n].alive
            held[n].update(zip(*samples, strict=True))
            assert len(held[n]) <= places[n] + (0 if server else subject.replicas[n].spare)

    for move, amount in moves:
        now += 0.1
        if move == "a":
            numbers = range(added, added + amount)
            subject.add(numbers, [number % 7 for number in numbers])
            added += amount
        engine = amount % len(places)
        if move == "c":
            numbers = list(held[engine])[: amount // 4 + 1]
            subject.started(engine, Batch.of_first([(number, 1) for number in numbers]))
            answered.extend(subject.completed(engine, answers(numbers), now).numbers)
            for number in numbers:
                held[engine].pop(number)
            late = answers(dead.get(engine, {}))
            assert subject.completed(engine, late, now).numbers == []
        if move == "l" and sum(replica.alive for replica in subject.replicas) > 1:
            subject.lost(engine)
            dead[engine] = {**dead.get(engine, {}), **held[engine]}
            held[engine] = {}
        assign()
    while subject.outstanding:
        now += 0.1
        assign()
        for n, samples in held.items():
            answered.extend(subject.completed(n, answers(samples), now).numbers)
            held[n] = {}
    assert sorted(answered) == list(range(added))


@pytest.mark.parametrize(("samples", "each"), [(1000, 10), (24, 10), (20, 9), (18, 8), (16, 8)])
def test_offline_fills_places_and_keeps_the_end_of_the_list_open(samples: int, each: int) -> None:
    subject = dispatcher([8, 8], [10.0, 10.0], server=False)
    subject.add(range(samples), [0] * samples)
    assert counts(subject) == {0: each, 1: each}


def test_the_last_samples_go_by_speed() -> None:
    subject = dispatcher([100, 100], [10.0, 20.0], server=False)
    subject.add(range(90), [0] * 90)
    assert counts(subject) == {0: 30, 1: 60}


def test_server_routes_by_work_and_speed() -> None:
    subject = dispatcher([100, 100], [10.0, 20.0], server=True)
    subject.add(range(90), [0] * 90)
    assert counts(subject)[1] == pytest.approx(60, abs=1)


def test_server_keeps_a_sample_until_an_engine_has_a_place() -> None:
    subject = dispatcher([1, 1], [10.0, 10.0], server=True)
    subject.add(range(3), [0] * 3)
    assert sum(counts(subject).values()) == 2
    assert subject.assign(0.1) == {}
    subject.completed(1, answers([1]), 0.2)
    assert subject.assign(0.2) == {1: ([2], [0])}


def test_speeds_are_learnt_whatever_was_measured_before() -> None:
    """Engine 0 turns out at half the rate of engine 1, though both were measured alike."""
    subject = dispatcher([4, 4], [10.0, 10.0], server=False)
    subject.add(range(100_000), [0] * 100_000)
    subject.assign(0.0)
    for tick in range(1, 400):
        for engine, every in ((0, 2), (1, 1)):
            if tick % every == 0:
                numbers = list(subject.replicas[engine].taken)[:4]
                subject.completed(engine, answers(numbers, 50), float(tick))
        subject.assign(float(tick))
    slow, fast = (replica.rate for replica in subject.replicas)
    assert fast / slow == pytest.approx(2, rel=0.05)
