"""Our engine on a stand-in for vLLM of either generation: what it asks for, and what comes of it.

The real ones: test_stop_sequences_engine.py (0.32), and `python -m bench.generations` (0.9.1).
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base import threads
from steps.base.errors import UserError
from steps.config.engine import VllmEngine as Config
from steps.config.generation import Generation
from steps.run.engines import vllm_engine, vllm_versions
from steps.run.engines.engine import Start
from tests.run import vllm_stub as stub

PLACEMENT = {
    "cluster": "none",
    "nodes": 1,
    "engines_per_node": 1,
    "in_process": True,
    "pinned": False,
    "device_variable": "none",
    "prompt_token_weight": 0.02,
    "on_failure": "fail",
    "silence_limit_s": 30.0,
    "degraded_below": 0.85,
}
END = 2
GENERATION = Generation(min_tokens=2, max_tokens=12, eos_token_id=(END, 3), stop_sequences=True)


class Arguments:
    """As a configuration has them: the stand-in takes others than a real vLLM."""

    max_num_seqs = 8

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given

    def passed_on(self) -> dict[str, Any]:
        return self._given


def config(environment: dict[str, str], arguments: dict[str, Any], **more: Any) -> Config:
    given = {
        "kind": "vllm",
        "build": "vllm-0.32.0",
        "placement": PLACEMENT,
        "offline_order": "as_issued",
        "environment": environment,
        "warmup_samples": 1,
        "start_limit_s": 60.0,
        "stall_limit_s": 30.0,
        "threads": 1,
        "arguments": {
            "dtype": "bfloat16",
            "max_model_len": 640,
            "max_num_seqs": 8,
            "max_num_batched_tokens": 4096,
            "tensor_parallel_size": 1,
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "enable_chunked_prefill": True,
            "seed": 0,
        },
        **more,
    }
    return Config.model_validate(given, strict=False).model_copy(
        update={"arguments": Arguments(arguments)}
    )


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither PyTorch nor weights are here, and what an engine sets goes again."""
    monkeypatch.setattr(threads, "told", lambda count: None)
    monkeypatch.setattr(vllm_engine, "_refuse_damaged", lambda weights: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))


def started(
    environment: dict[str, str] | None = None,
    arguments: dict[str, Any] | None = None,
    *,
    first_tokens: bool = True,
    **more: Any,
) -> vllm_engine.VllmEngine:
    engine = vllm_engine.VllmEngine()
    given = {vllm_versions.ONE_PROCESS: "0", **(environment or {})}
    settings = config(given, arguments or {}, **more)
    engine.start(Start(Path("weights"), settings, GENERATION, first_tokens))
    return engine


def answers(
    engine: vllm_engine.VllmEngine, asked: list[tuple[list[int], list[int]]]
) -> tuple[dict[int, int], dict[int, list[int]]]:
    """First tokens and answers; a prompt of the stand-in is its answer."""
    engine.submit([(number, script, stop) for number, (script, stop) in enumerate(asked)])
    first: dict[int, int] = {}
    whole: dict[int, list[int]] = {}
    while len(whole) < len(asked):
        events = engine.step()
        first.update(events.first)
        whole.update((number, answer.tolist()) for number, answer in events.completed)
    return first, whole


def cut(script: list[int], stop: list[int]) -> list[int]:
    """What the reference leaves of it."""
    for end in range(1, len(script) + 1):
        answer = script[:end]
        if end < GENERATION.min_tokens:
            continue
        if answer[-1] in GENERATION.ends or end == GENERATION.max_tokens:
            return answer
        if stop and end > len(stop) and answer[-len(stop) :] == stop:
            return answer
    raise AssertionError("a script ends")


KINDS = {
    "V0": (stub.V0, stub.SamplingParams, {"VLLM_USE_V1": "0"}),
    "AMD's V0": (stub.V0, stub.AmdSamplingParams, {"VLLM_USE_V1": "0"}),
    "V1": (stub.V1, stub.SamplingParams, {}),
    "AMD's V1": (stub.V1, stub.AmdSamplingParams, {"VLLM_USE_V1": "1"}),
}
tokens = st.integers(4, 7)
scripts = st.lists(tokens, max_size=12).map(lambda head: [*head, END] + [9] * 12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("first_tokens", [True, False])
@given(asked=st.lists(st.tuples(scripts, st.lists(tokens, max_size=2)), min_size=1, max_size=4))
def test_an_answer_ends_as_the_reference_cuts_it(
    kind: str, chunk: int, first_tokens: bool, asked: list[tuple[list[int], list[int]]]
) -> None:
    """At the sample's sequence, an end-of-sequence token or the limit, whatever comes at once."""
    made, parameters, environment = KINDS[kind]
    with pytest.MonkeyPatch.context() as patch:
        stub.install(patch, made, chunk=chunk, parameters=parameters, both="AMD" in kind)
        engine = started(environment, first_tokens=first_tokens)
        first, whole = answers(engine, asked)
    assert whole == {n: cut(script, stop) for n, (script, stop) in enumerate(asked)}
    wanted = {n: script[0] for n, (script, _) in enumerate(asked)}
    assert first == (wanted if first_tokens else {})


def test_a_sequence_of_an_end_token_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference's data has the end-of-sequence token as the sequence of most samples."""
    stub.install(monkeypatch, stub.V1)
    plain = sys.modules["vllm.v1.core.sched.scheduler"].check_stop
    _, whole = answers(started(), [([5, 6, END], [END])])
    assert whole == {0: [5, 6, END]}
    assert sys.modules["vllm.v1.core.sched.scheduler"].check_stop is plain


def test_wrapping_twice_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stub.install(monkeypatch, stub.V1)
    asked = [([5, 6, 7, 5, END], [7])]
    assert answers(started(), asked) == answers(started(), asked) == ({0: 5}, {0: [5, 6, 7]})


@pytest.mark.parametrize(
    ("arguments", "parameters", "engine", "request_"),
    [
        (stub.EngineArgs, stub.SamplingParamsWithInterval, None, 12),
        (stub.EngineArgsWithInterval, stub.SamplingParamsWithInterval, 1, 12),
        (stub.EngineArgsWithInterval, stub.SamplingParams, 12, None),
        (stub.EngineArgs, stub.SamplingParams, None, None),
    ],
)
def test_outputs_between_the_first_token_and_the_end_are_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    arguments: type[Any],
    parameters: type[Any],
    engine: int | None,
    request_: int | None,
) -> None:
    stub.install(monkeypatch, stub.V1, arguments=arguments, parameters=parameters)
    subject = started()
    assert stub.Engine.started.get("stream_interval") == engine
    assert getattr(subject._of(()), "stream_interval", None) == request_


def test_sampling_is_the_configured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stub.install(monkeypatch, stub.V1)
    greedy = started()._of(())
    assert (greedy.temperature, greedy.top_k, greedy.seed) == (0.0, 0, None)
    given = started(sampling={"temperature": 1.0, "top_k": 1, "seed": 42})._of(())
    assert (given.temperature, given.top_k, given.seed) == (1.0, 1, 42)
    assert given.stop_token_ids == [END, 3]


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        answers(started(*arguments, **options), [([5, 6, 7, END], [7])])
    return str(caught.value)


def test_an_argument_that_this_vllm_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stub.install(monkeypatch, stub.V1)
    said = refusal({}, {"num_scheduler_step": 8})
    assert "vLLM 0.0 has no engine argument num_scheduler_step" in said
    assert "the nearest is num_scheduler_steps" in said


def test_a_release_with_both_generations_has_to_be_told_which(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub.install(monkeypatch, stub.V0, both=True)
    assert "has V0 and V1, and engine.environment.VLLM_USE_V1 doesn't say which" in refusal()


@pytest.mark.parametrize(("made", "asked"), [(stub.V1, "0"), (stub.V0, "1")])
def test_another_generation_than_asked_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, made: type[stub.Engine], asked: str
) -> None:
    stub.install(monkeypatch, made, both=True)
    said = refusal({"VLLM_USE_V1": asked})
    assert f"vLLM 0.0 started {made.__name__}" in said


def test_sequences_need_the_engine_core_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stub.install(monkeypatch, stub.V1)
    assert "set engine.environment.VLLM_ENABLE_V1_MULTIPROCESSING" in refusal(
        {vllm_versions.ONE_PROCESS: "1"}
    )


def test_a_vllm_that_ends_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stub.install(monkeypatch, stub.V1)
    for module in ("scheduler", "utils"):
        monkeypatch.setattr(
            sys.modules[f"vllm.v1.core.sched.{module}"], "check_stop", lambda batch: None
        )
    with pytest.raises(UserError, match="doesn't know when an answer has ended"):
        started()._of((7,))
    stub.install(monkeypatch, stub.V1)
    scheduler = sys.modules["vllm.v1.core.sched.scheduler"]
    monkeypatch.setattr(scheduler, "check_stop", lambda request, max_model_len: False)
    with pytest.raises(UserError, match="doesn't know when an answer has ended"):
        started()._of((7,))


def test_a_tuning_file_that_is_missing_or_empty_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub.install(monkeypatch, stub.V1)
    tuning = tmp_path / "tuning.txt"
    name = "HIPBLASLT_TUNING_OVERRIDE_FILE"
    assert f"engine.environment.{name} leads to {tuning}" in refusal({name: str(tuning)})
    tuning.touch()
    assert f"engine.environment.{name} leads to {tuning}" in refusal({name: str(tuning)})
    tuning.write_text("1")
    started({name: str(tuning)})


def test_a_warning_of_every_request_is_logged_once() -> None:
    import logging

    once = vllm_versions.Once("Using None")

    def passes(words: str) -> bool:
        return once.filter(logging.LogRecord("x", 30, "", 0, words, None, None))

    said = ["Using None for it", "another", "Using None for it", "another"]
    assert list(map(passes, said)) == [True, True, False, True]
