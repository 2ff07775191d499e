"""vLLM in LoadGen's process: one Python loop drives the engine, with no hop in between."""

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steps.base import threads
from steps.base.errors import UserError, explain
from steps.run.engines.engine import Events, Request, Start

COMPLETE = ("stop", "length")
"""Finish reasons of an answer; any other means that vLLM aborted the request."""


class VllmEngine:
    """Greedy decoding of token ids; text is never made."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._parameters: Any = None
        self._tokens: dict[str, list[int]] = {}
        self._first_tokens = False
        self._emulation = False

    def start(self, start: Start) -> None:
        config, generation, weights = start.config, start.generation, start.weights
        first_tokens = start.first_tokens
        # vLLM reads its environment while it is imported.
        threads.take(config.threads)
        os.environ.update(config.environment)
        try:
            threads.told(config.threads)
            from vllm import EngineArgs, LLMEngine, SamplingParams
            from vllm.sampling_params import RequestOutputKind
        except ImportError as error:
            raise UserError(
                f"vLLM can't be imported ({error}); see docs/how-to/trouble.md"
            ) from error
        if config.emulation:
            from steps.run.engines import emulation

            emulation.register()
        self._emulation = config.emulation
        self._first_tokens = first_tokens
        self._parameters = SamplingParams(
            temperature=0.0,
            min_tokens=generation.min_tokens,
            max_tokens=generation.max_tokens,
            stop_token_ids=[generation.eos_token_id],
            detokenize=False,
            # An output costs; only first tokens are worth one, and only where they are timed.
            output_kind=(RequestOutputKind.DELTA if first_tokens else RequestOutputKind.FINAL_ONLY),
            stream_interval=generation.max_tokens if first_tokens else None,
        )
        _refuse_damaged(weights)
        try:
            arguments = EngineArgs(
                model=str(weights),
                skip_tokenizer_init=True,
                **{"disable_log_stats": True, **config.arguments.passed_on()},
            )
            self._engine = LLMEngine.from_engine_args(arguments)
        except Exception as error:
            # vLLM raises many kinds; its own log has the story.
            text = explain(error) if isinstance(error, ValidationError) else str(error)
            line = (text.strip().splitlines() or [type(error).__name__])[0]
            sentence = line.split(". ")[0].rstrip(".")
            raise UserError(f"vLLM can't start on {weights}: {sentence}; see the log") from error

    def threads(self) -> int:
        return threads.computing()

    def submit(self, requests: Sequence[Request]) -> None:
        for number, prompt in requests:
            name = str(number)
            self._tokens[name] = []
            self._engine.add_request(name, {"prompt_token_ids": list(prompt)}, self._parameters)

    def step(self) -> Events:
        events = Events()
        for output in self._engine.step():
            name = output.request_id
            known = self._tokens[name]
            new = output.outputs[0].token_ids
            if self._first_tokens and not known and new:
                events.first.append((int(name), new[0]))
            known.extend(new)
            if output.finished:
                reason = output.outputs[0].finish_reason
                if reason not in COMPLETE:
                    raise UserError(f"vLLM ended request {name} as {reason!r}; see the log")
                events.completed.append((int(name), array("i", self._tokens.pop(name))))
        return events

    def identity(self) -> dict[str, str]:
        import vllm
        from vllm.platforms import current_platform

        return {
            "name": "vllm",
            "version": vllm.__version__,
            "device": str(current_platform.device_type),
            "kernels": "emulated" if self._emulation else "native",
        }

    def device(self) -> str:
        from vllm.platforms import current_platform

        return str(current_platform.get_device_name())


def _refuse_damaged(weights: Path) -> None:
    """An incomplete file gets one sentence before vLLM's long traceback."""
    from safetensors import SafetensorError, safe_open

    shards = sorted(weights.glob("*.safetensors"))
    if not shards or not (weights / "config.json").is_file():
        raise UserError(f"{weights} lacks config.json or safetensors; delete it and re-run")
    for shard in shards:
        try:
            with safe_open(shard, framework="pt"):
                pass
        except SafetensorError as error:
            raise UserError(
                f"{shard} isn't a complete safetensors file ({error}); delete {weights} and re-run"
            ) from error
