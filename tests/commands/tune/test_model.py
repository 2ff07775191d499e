"""What the fitted engine knows of engines that behave otherwise than one queue at a steady pace."""

from dataclasses import replace

import numpy as np
import pytest

from bench.simulated_engine import Answers, Behaviour, Kind, SimulatedProber, full_run, tokens_of
from steps.commands.tune.arrivals import Length
from steps.commands.tune.measure import Limits, Metric, Probe, Samples, quantile
from steps.commands.tune.model import fit
from steps.commands.tune.replicas import replica_count
from steps.mlperf.early_stopping import needed_share

LENGTH = Length(18209322760996052031, 1024, 100, 60.0)
ONE = Kind(
    *("one", Behaviour(0.01, per_running_s=4e-4, slots=512), Answers(60, 0.5)),
    *(Limits(ttft=1.0, tpot=0.04), LENGTH),
)
KNEE = replace(ONE, behaviour=Behaviour(0.02, per_running_s=5e-5, knee=(40, 4e-4), slots=512))
DEALT = replace(ONE, behaviour=Behaviour(0.02, slots=12, slowness=(1.0, 1.0, 1.0, 1.25)))
SHARED = replace(
    ONE, behaviour=Behaviour(0.01, 1e-3, slots=64, slowness=(1.0, 1.0, 0.8), shared=True)
)
JITTER = replace(ONE, behaviour=replace(ONE.behaviour, jitter=0.3))


def probes(kind: Kind, *rates: float) -> list[Samples]:
    prober = SimulatedProber(kind, 1)
    asked = [
        Probe(
            number=number,
            seed=LENGTH.seed + number,
            rate=rate,
            queries=int(40 * rate),
            final=False,
            allowed_misses=None,
        )
        for number, rate in enumerate(rates, start=1)
    ]
    return [prober.measure(probe).samples for probe in asked]


@pytest.mark.parametrize(("kind", "engines"), [(ONE, 1), (DEALT, 4), (SHARED, 1), (JITTER, 1)])
def test_engines_that_are_dealt_requests_in_turn_are_told_by_who_overtakes_whom(
    kind: Kind, engines: int
) -> None:
    assert replica_count(probes(kind, 15.0, 25.0, 35.0)) == engines


@pytest.mark.parametrize(
    ("kind", "rate", "metric", "off"),
    [(ONE, 24.0, "tpot", 0.01), (KNEE, 26.0, "tpot", 0.03), (DEALT, 27.0, "ttft", 0.2)],
    ids=["one", "knee", "dealt"],
)
def test_the_tail_of_a_run_is_known_from_short_probes(
    kind: Kind, rate: float, metric: Metric, off: float
) -> None:
    """The tail of a queue is off by more: by what a percent of the rate moves it."""
    engine = fit(probes(kind, 15.0, 22.0, 32.0))
    assert engine is not None
    run = full_run(kind, rate, (1,), watched=False).samples
    tokens = tokens_of(kind, len(run), LENGTH.seed)
    played = engine.play(run.arrived, np.random.default_rng(1), tokens)
    share = needed_share(len(run))
    real = quantile(run.latencies(metric), share)
    assert quantile(played.latencies(metric), share) == pytest.approx(real, rel=off)


def test_a_probe_played_again_with_what_slowed_its_answers_has_its_own_tail() -> None:
    measured = probes(JITTER, 20.0, 24.0)
    engine = fit(measured)
    assert engine is not None
    assert not engine.steady
    for samples, own in zip(measured, engine.own, strict=True):
        rng = np.random.default_rng(1)
        played = engine.play(samples.arrived, rng, samples.tokens, own)
        real = quantile(samples.latencies("tpot"), 0.99)
        assert quantile(played.latencies("tpot"), 0.99) == pytest.approx(real, rel=0.02)
