"""Kinds of queueing behaviour whose limits are found by trying every rate (bench.tune)."""

from collections.abc import Mapping
from dataclasses import replace

from bench.simulated_engine import Answers, Behaviour, Kind
from steps.commands.tune.arrivals import Length
from steps.commands.tune.measure import Limits

SEED = 18209322760996052031
"""schedule_rng_seed of v5.1."""

SERVER = Limits(ttft=2.0, tpot=0.2)
INTERACTIVE = Limits(ttft=0.45, tpot=0.04)
TALK = Limits(ttft=2.0, tpot=0.05)
USUAL = Answers(200, 0.6)


def _kind(
    name: str, limits: Limits, behaviour: Behaviour, answers: Answers = USUAL, samples: int = 8313
) -> Kind:
    """A run of at least ten minutes over whole copies of `samples` (8,313: Llama 3.1 405B's)."""
    return Kind(name, behaviour, answers, limits, Length(SEED, samples, 100, 600.0))


LINEAR = Behaviour(step_s=0.02, per_running_s=2e-4, slots=512)

KINDS: tuple[Kind, ...] = (
    _kind("linear", TALK, LINEAR),
    _kind("linear, steep", INTERACTIVE, Behaviour(step_s=0.01, per_running_s=4e-4, slots=512)),
    _kind("linear, gentle", TALK, Behaviour(step_s=0.042, per_running_s=5e-5, slots=512)),
    _kind("saturating at few slots", SERVER, Behaviour(step_s=0.03, slots=64)),
    _kind("saturating at many slots", SERVER, Behaviour(step_s=0.06, slots=192)),
    _kind("saturating, both limits near", TALK, replace(LINEAR, slots=140)),
    _kind("roofline", TALK, Behaviour(0.012, per_running_s=4e-4, floor_s=0.04, slots=512)),
    _kind("knee", TALK, Behaviour(0.03, per_running_s=5e-5, knee=(100, 1e-3), slots=512)),
    _kind("prefill-bound", SERVER, Behaviour(0.03, per_running_s=1e-4, per_prefill_s=0.05)),
    _kind("one prefill a step", SERVER, Behaviour(0.05, per_running_s=1e-4, prefills=1)),
    _kind("prefill stalls decoding", INTERACTIVE, Behaviour(0.02, per_prefill_s=0.015)),
    _kind("bimodal, slots", SERVER, Behaviour(0.03, slots=80), Answers(100, 0.3, 1000, 0.1)),
    _kind("bimodal, linear", TALK, LINEAR, Answers(60, 0.3, 600, 0.25)),
    _kind("long answers", TALK, Behaviour(0.02, per_running_s=1e-4, slots=320), Answers(700, 0.5)),
    _kind("short answers", INTERACTIVE, Behaviour(0.02, per_running_s=1e-3), Answers(25, 0.5)),
    _kind("jitter", TALK, replace(LINEAR, jitter=0.3)),
    _kind("strong jitter", SERVER, Behaviour(0.03, slots=80, jitter=0.5)),
    _kind("slow node, dealt", SERVER, Behaviour(0.04, slots=24, slowness=(1.0, 1.0, 1.0, 1.25))),
    _kind(
        "slow node, shared queue",
        TALK,
        Behaviour(0.02, 8e-4, slots=64, slowness=(1.0, 1.0, 1.0, 1.3), shared=True),
    ),
    _kind("eight nodes", SERVER, Behaviour(0.04, slots=16, slowness=(1.0,) * 8)),
    _kind(
        "mixed generations",
        TALK,
        Behaviour(0.02, 1e-3, slots=64, slowness=(1.0, 1.0, 0.8, 0.8), shared=True),
    ),
    _kind("rare bursts", TALK, replace(LINEAR, burst=(20.0, 0.4, 4.0))),
    _kind("long bursts", SERVER, Behaviour(0.03, slots=96, burst=(30.0, 2.0, 1.5))),
    _kind("two copies of the samples", TALK, LINEAR, samples=4096),
    _kind("linear, Server's limits", SERVER, Behaviour(0.04, per_running_s=5e-4, slots=512)),
    _kind("saturating, Interactive's limits", INTERACTIVE, Behaviour(0.015, slots=48)),
    _kind("roofline, steep", TALK, Behaviour(0.01, per_running_s=6e-4, floor_s=0.03, slots=512)),
    _kind("bimodal, few long", TALK, LINEAR, Answers(100, 0.4, 1200, 0.05)),
    _kind("two nodes", SERVER, Behaviour(0.03, slots=48, slowness=(1.0, 1.0))),
    _kind("slow node of eight", SERVER, Behaviour(0.04, slots=24, slowness=(*[1.0] * 7, 1.4))),
    _kind("pauses, linear", TALK, replace(LINEAR, pause=(10.0, 0.3))),
    _kind("pauses, slots", SERVER, Behaviour(0.03, slots=80, pause=(7.0, 0.5))),
)

BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}
