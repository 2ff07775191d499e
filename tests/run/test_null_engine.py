"""The null engine: answers of the right number, length and time, and nothing computed."""

import json
import time
from pathlib import Path
from typing import Any

from steps.config.layers import merged
from steps.config.runs import PerformanceRunConfig
from steps.run.engines.engine import Start
from steps.run.engines.null_engine import NullEngine
from tests.conftest import planned


def engine(number: int = 0, **arguments: Any) -> NullEngine:
    plan = planned("experiment=null-engine", "scenario=Server")
    raw = next(json.loads(job.config) for job in plan.jobs if job.step == "performance_run")
    changed = merged(raw, {"engine": {"arguments": arguments}})
    config = PerformanceRunConfig.model_validate_json(json.dumps(changed))
    subject = NullEngine()
    subject.start(Start(Path(), config.engine, config.generation, True, number))
    return subject


def answered(subject: NullEngine, count: int) -> tuple[dict[int, int], float]:
    """Length of each answer, and the seconds that all took."""
    begun = time.perf_counter()
    subject.submit([(number, [1, 2, number], ()) for number in range(count)])
    firsts: list[int] = []
    lengths: dict[int, int] = {}
    while len(lengths) < count:
        events = subject.step()
        firsts.extend(number for number, _ in events.first)
        for number, answer in events.completed:
            assert number in firsts
            assert number not in lengths
            assert answer[-1] == 2
            lengths[number] = len(answer)
    assert sorted(firsts) == list(range(count))
    return lengths, time.perf_counter() - begun


def test_lengths_are_the_prompts_own_whatever_the_engine() -> None:
    lengths, _ = answered(engine(tpot_ms=0.01, ttft_ms=0), 64)
    others, _ = answered(engine(number=3, speeds=[1, 2], tpot_ms=0.01, ttft_ms=0), 64)
    assert lengths == others
    assert len(set(lengths.values())) > 10


def test_time_follows_from_places_and_speed() -> None:
    """64 answers of 28 tokens in 32 places: two rounds of 10 + 27 × 1 ms, at twice the speed."""
    arguments = {"output_tokens_sigma": 0, "ttft_ms": 10, "tpot_ms": 1, "jitter": 0, "speeds": [2]}
    _, seconds = answered(engine(max_num_seqs=32, **arguments), 64)
    assert seconds >= 0.037


def test_an_engine_without_a_free_place_sleeps_until_its_next_event() -> None:
    """On two cores there are dozens, and each step costs."""
    given = {"output_tokens_sigma": 0, "ttft_ms": 0, "tpot_ms": 10, "jitter": 0, "speeds": [1]}
    subject = engine(max_num_seqs=2, **given)
    subject.submit([(number, [1, 2, number], ()) for number in range(4)])
    assert any(subject.step().completed for _ in range(29)), "within 29 steps of 270 ms"
