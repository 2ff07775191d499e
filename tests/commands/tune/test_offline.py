"""How long an Offline run has to be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.commands.tune.offline import Offline, advice


def answers(samples: int, rate: float, fill_s: float, drain_s: float) -> list[float]:
    """Nothing for `fill_s`, then `rate` a second, the last tenth stretched by `drain_s`."""
    times = [fill_s + (n + 1) / rate for n in range(samples)]
    late = samples * 9 // 10
    stretch = drain_s / (samples - late)
    return [t + max(0, n - late + 1) * stretch for n, t in enumerate(times)]


@given(
    samples=st.integers(200, 5000),
    rate=st.floats(1, 1000),
    fill_s=st.floats(0, 20),
    drain_s=st.floats(0, 20),
)
def test_the_time_of_a_run_is_taken_apart(
    samples: int, rate: float, fill_s: float, drain_s: float
) -> None:
    found = Offline.of(answers(samples, rate, fill_s, drain_s))
    assert found.full == pytest.approx(rate, rel=1e-6)
    assert found.overhead_s == pytest.approx(fill_s + drain_s, abs=1e-3)
    whole_s = fill_s + drain_s + samples / rate
    assert found.throughput(samples) == pytest.approx(samples / whole_s, rel=1e-6)


def test_a_run_of_the_advised_length_reaches_the_share() -> None:
    found = Offline(full=100.0, overhead_s=30.0)
    assert found.throughput(round(found.samples(0.99))) == pytest.approx(99.0)


def test_the_advised_rate_keeps_the_engines_busy_for_the_duration() -> None:
    found = Offline(full=100.0, overhead_s=30.0)
    samples = 1.1 * 600 * found.target_qps(600.0)
    assert found.overhead_s + samples / found.full >= 600
    assert samples < 1.05 * 100 * 600, "and not much longer"


def test_the_advice_names_rate_and_length() -> None:
    text = advice(Offline(full=100.0, overhead_s=30.0), 600.0, 24576, 0.995)
    assert "target_qps 88.09 makes 73,728 samples, 737 s" in text
    assert "99.5%" in text


def test_too_few_answers_are_refused() -> None:
    with pytest.raises(UserError, match="too few"):
        Offline.of([1.0, 2.0])
