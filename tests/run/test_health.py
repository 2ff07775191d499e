"""Engines that are slower than their equals are named, and no others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.run.sut.health import Speed, degraded

BELOW = 0.85


def test_a_slow_engine_is_named_with_its_share() -> None:
    speeds = {n: Speed("MI300X", rate) for n, rate in enumerate([10.0, 10.2, 6.0, 9.9])}
    assert degraded(speeds, BELOW) == {2: pytest.approx(6 / 9.95)}


def test_another_generation_is_no_equal() -> None:
    speeds = {0: Speed("MI300X", 10.0), 1: Speed("MI325X", 13.0), 2: Speed("MI325X", 12.9)}
    assert degraded(speeds, BELOW) == {}


@given(st.lists(st.floats(0.93, 1.07), max_size=16), st.floats(0.1, 1e4))
def test_what_differs_as_healthy_engines_do_is_not_named(spread: list[float], rate: float) -> None:
    speeds = {n: Speed("MI300X", rate * factor) for n, factor in enumerate(spread)}
    assert degraded(speeds, BELOW) == {}
