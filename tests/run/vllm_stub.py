"""vLLM's modules as far as our engine meets them, of either generation, without any arithmetic.

A prompt is its own answer. `chunk` tokens of a request come at once, as V0 with several scheduler
steps returns them, and every output of a request is one object that is used again.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@dataclass
class Answer:
    """A request of either generation: V0 calls it a sequence."""

    name: str
    script: list[int]
    sampling_params: Any
    output_token_ids: list[int] = field(default_factory=list)
    status: str = ""
    reported: int = 0

    @property
    def num_output_tokens(self) -> int:
        return len(self.output_token_ids)

    def get_output_len(self) -> int:
        return len(self.output_token_ids)

    def get_output_token_ids(self) -> tuple[int, ...]:
        return tuple(self.output_token_ids)

    def is_finished(self) -> bool:
        return bool(self.status)


def plain(answer: Answer) -> bool:
    """Ends an answer as vLLM does, but for stop sequences."""
    parameters = answer.sampling_params
    if answer.num_output_tokens < parameters.min_tokens:
        return False
    if answer.output_token_ids[-1] in parameters.stop_token_ids:
        answer.status = "stop"
    elif answer.num_output_tokens >= parameters.max_tokens:
        answer.status = "length"
    return bool(answer.status)


class StopChecker:
    def maybe_stop_sequence(
        self, seq: Answer, new_char_count: int, sampling_params: Any, lora_req: Any = None
    ) -> None:
        plain(seq)
        theirs = getattr(sampling_params, "stop_seq_ids", None)  # AMD's patch
        size = len(theirs or ())
        longer = len(seq.output_token_ids) > size
        if theirs and longer and tuple(seq.output_token_ids[-size:]) == theirs:
            seq.status = "stop"


def check_stop(request: Answer, max_model_len: int) -> bool:
    return plain(request)


class Engine:
    """`chunk` tokens of every request in a step."""

    chunk = 1
    started: dict[str, Any] = {}  # noqa: RUF012 (the arguments of the last one)

    def __init__(self) -> None:
        self._running: list[Answer] = []
        self._outputs: dict[str, Any] = {}

    @classmethod
    def from_engine_args(cls, arguments: Any) -> Any:
        Engine.started = vars(arguments)
        return MADE()

    def add_request(self, name: str, prompt: dict[str, list[int]], parameters: Any) -> None:
        self._running.append(Answer(name, prompt["prompt_token_ids"], parameters))

    def step(self) -> list[Any]:
        found = []
        for answer in self._running:
            for _ in range(self.chunk):
                answer.output_token_ids.append(answer.script[answer.num_output_tokens])
                self.ended(answer)
                if answer.is_finished():
                    break
            delta = answer.sampling_params.output_kind == "DELTA"
            if delta or answer.is_finished():
                found.append(self._output(answer))
        self._running = [answer for answer in self._running if not answer.is_finished()]
        return found

    def ended(self, answer: Answer) -> None:
        raise NotImplementedError

    def _output(self, answer: Answer) -> Any:
        output = self._outputs.setdefault(
            answer.name,
            SimpleNamespace(
                request_id=answer.name, outputs=[SimpleNamespace(token_ids=[])], finished=False
            ),
        )
        output.outputs[0].token_ids[:] = answer.output_token_ids[answer.reported :]
        output.outputs[0].finish_reason = answer.status
        output.finished = answer.is_finished()
        answer.reported = answer.num_output_tokens
        return output


class V0(Engine):
    def ended(self, answer: Answer) -> None:
        checker = sys.modules["vllm.engine.output_processor.stop_checker"].StopChecker()
        checker.maybe_stop_sequence(
            answer, new_char_count=0, sampling_params=answer.sampling_params
        )


class V1(Engine):
    def ended(self, answer: Answer) -> None:
        sys.modules["vllm.v1.core.sched.scheduler"].check_stop(answer, 4096)


V0.__module__, V1.__module__ = "vllm.engine.llm_engine", "vllm.v1.engine.llm_engine"
MADE: Callable[[], Engine] = V1


@dataclass
class EngineArgs:
    model: str
    skip_tokenizer_init: bool = False
    disable_log_stats: bool = False
    max_num_seqs: int = 8
    num_scheduler_steps: int = 1


@dataclass
class EngineArgsWithInterval(EngineArgs):
    stream_interval: int = 1


@dataclass
class SamplingParams:
    min_tokens: int
    max_tokens: int
    stop_token_ids: list[int]
    detokenize: bool
    output_kind: str
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    extra_args: dict[str, Any] | None = None


@dataclass
class SamplingParamsWithInterval(SamplingParams):
    stream_interval: int | None = None


class AmdSamplingParams(SamplingParams):
    stop_seq_ids: Any = None


def install(
    patch: pytest.MonkeyPatch,
    made: type[Engine],
    *,
    chunk: int = 1,
    both: bool = False,
    arguments: type[Any] = EngineArgs,
    parameters: type[Any] = SamplingParams,
) -> None:
    """Put it in the place of vLLM. `both`: it is a release that has V0 and V1."""
    patch.setattr(sys.modules[__name__], "MADE", made)
    patch.setattr(Engine, "chunk", chunk)
    facade = type("LLMEngine", (Engine,), {"__module__": "vllm.engine.llm_engine" if both else "x"})
    kinds = SimpleNamespace(DELTA="DELTA", FINAL_ONLY="FINAL_ONLY")
    checker = type("StopChecker", (StopChecker,), dict(vars(StopChecker)))
    statuses = SimpleNamespace(FINISHED_STOPPED="stop")
    content: dict[str, dict[str, Any]] = {
        "vllm": {
            "__version__": "0.0",
            "EngineArgs": arguments,
            "LLMEngine": facade,
            "SamplingParams": parameters,
        },
        "vllm.sampling_params": {"RequestOutputKind": kinds},
        "vllm.engine": {},
        "vllm.engine.llm_engine": {"LLMEngine": facade},
        "vllm.engine.output_processor": {},
        "vllm.engine.output_processor.stop_checker": {"StopChecker": checker},
        "vllm.sequence": {"SequenceStatus": statuses},
        "vllm.v1": {},
        "vllm.v1.request": {"RequestStatus": statuses},
        "vllm.v1.core": {},
        "vllm.v1.core.sched": {},
        "vllm.v1.core.sched.utils": {"check_stop": check_stop},
        "vllm.v1.core.sched.scheduler": {"check_stop": check_stop},
    }
    for name, attributes in content.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        patch.setitem(sys.modules, name, module)
        above, _, own = name.rpartition(".")
        if above:
            setattr(sys.modules[above], own, module)
