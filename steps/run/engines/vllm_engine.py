"""vLLM in its own process or LoadGen's: one Python loop drives the engine, with no hop in between.

One class for every generation of vLLM; what differs between them is in vllm_versions.py.
"""

import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steps.base import threads
from steps.base.errors import UserError, explain
from steps.config.engine import DiffusersEngine, NullEngine
from steps.config.generation import Generation, ImageGeneration
from steps.config.resolved import Resolved
from steps.prepare.checkpoint.config_forms import refuse_misread
from steps.run.engines import resolution, watched
from steps.run.engines import vllm_versions as versions
from steps.run.engines.engine import Events, Request, Start

COMPLETE = ("stop", "length")
"""Finish reasons of an answer; any other means that vLLM aborted the request."""

FILES = ("HIPBLASLT_TUNING_OVERRIDE_FILE", "VLLM_TUNE_FILE")
"""Variables with a file that is read; others of such names lead to files that are written."""


class VllmEngine:
    """Token ids in, token ids out; text is never made."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._parameters: dict[tuple[int, ...], Any] = {}
        """SamplingParams by stop sequence: a dataset has few different ones."""
        self._tokens: dict[str, list[int]] = {}
        self._emulation = False

    def start(self, start: Start) -> None:
        config, weights = start.config, start.weights
        if isinstance(config, NullEngine | DiffusersEngine) or isinstance(
            start.generation, ImageGeneration
        ):
            raise UserError(f"vLLM was given settings of {config.kind}")
        _refuse_lost_files(config.environment)
        # vLLM reads its environment while it is imported.
        threads.take(config.threads)
        versions.bind(config.threads)
        os.environ.update(config.environment)
        self._asked, self._unread = config.arguments.passed_on(), config.unread
        self._watch = watched.watch(config.environment)
        try:
            threads.told(config.threads)
            import vllm
            from vllm import EngineArgs, LLMEngine, SamplingParams
        except ImportError as error:
            raise UserError(
                f"vLLM can't be imported ({error}); see docs/how-to/trouble.md"
            ) from error
        if config.emulation:
            versions.emulate(vllm.__version__)
        self._start, self._emulation = start, config.emulation
        self._generation: Generation = start.generation
        self._sampling = config.sampling.model_dump(exclude_none=True)
        arguments = {
            "skip_tokenizer_init": True,
            "disable_log_stats": True,
            **self._asked,
        }
        known, requests = versions.taken(EngineArgs), versions.taken(SamplingParams)
        release = vllm.__version__
        versions.refuse_unknown(arguments, known, release)
        versions.refuse_unchosen(config.environment, release)
        if start.first_tokens:
            limit = start.generation.max_tokens
            interval = versions.first_token_only(limit, requests)
            self._sampling |= interval
            if not interval:
                arguments = {**versions.first_token_only(limit, known), **arguments}
        _refuse_damaged(weights)
        unsaid = getattr(config.arguments, "dtype", "auto") == "auto"
        if reader := versions.installed("transformers"):
            refuse_misread(weights, reader, dtype=unsaid)
        try:
            arguments = {**versions.validated(known, config.unread), **arguments}
            made = EngineArgs(model=str(weights), **arguments)
            self._engine = LLMEngine.from_engine_args(made)
        except Exception as error:
            # vLLM raises many kinds; its own log has the story.
            text = explain(error) if isinstance(error, ValidationError) else str(error)
            line = (text.strip().splitlines() or [type(error).__name__])[0]
            sentence = line.split(". ")[0].rstrip(".")
            raise UserError(f"vLLM can't start on {weights}: {sentence}; see the log") from error
        self._version = versions.of(self._engine, config.environment, release)
        versions.quiet(self._version)
        self._sequences = versions.StopSequences(self._version, config.environment, release)

    def resolved(self) -> Resolved:
        found = resolution.resolved(self._engine, self._asked)
        states = self._watch.states()
        said = watched.differences(states, self._unread)
        return found.model_copy(
            update={"variables": states, "differences": (*found.differences, *said)}
        )

    def threads(self) -> int:
        return threads.computing()

    def submit(self, requests: Sequence[Request]) -> None:
        for number, prompt, stop in requests:
            name = str(number)
            self._tokens[name] = []
            parameters = self._of(tuple(stop))
            self._engine.add_request(name, {"prompt_token_ids": list(prompt)}, parameters)

    def step(self) -> Events:
        events = Events()
        for output in self._engine.step():
            name = output.request_id
            known = self._tokens[name]
            # Copied: V0 may use an output again, and has several tokens at once in some.
            new = list(output.outputs[0].token_ids)
            if self._start.first_tokens and not known and new:
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
            "generation": self._version,
            # Of ROCm too, device_type is "cuda".
            "device": str(current_platform.device_name),
            "kernels": "emulated" if self._emulation else "native",
        }

    def device(self) -> str:
        from vllm.platforms import current_platform

        return str(current_platform.get_device_name())

    def _of(self, stop: tuple[int, ...]) -> Any:
        """SamplingParams of a request with this stop sequence."""
        if stop not in self._parameters:
            self._parameters[stop] = self._made(stop)
        return self._parameters[stop]

    def _made(self, stop: tuple[int, ...]) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        generation = self._generation
        # A sequence of one token that ends answers anyway needs nothing more.
        sequence = () if stop and set(stop) <= set(generation.ends) and len(stop) == 1 else stop
        kind = RequestOutputKind
        parameters = SamplingParams(
            min_tokens=generation.min_tokens,
            max_tokens=generation.max_tokens,
            stop_token_ids=list(generation.ends),
            detokenize=False,
            # An output costs; only first tokens are worth one, and only where they are timed.
            output_kind=kind.DELTA if self._start.first_tokens else kind.FINAL_ONLY,
            **self._sampling,
            **(self._sequences.arguments(sequence) if sequence else {}),
        )
        if sequence:
            self._sequences.mark(parameters, sequence)
        return parameters


def _refuse_lost_files(environment: Mapping[str, str]) -> None:
    """Libraries pass over a tuning file that isn't there, and then run with other kernels."""
    for name, value in environment.items():
        path = Path(value)
        if name in FILES and (not path.is_file() or not path.stat().st_size):
            raise UserError(
                f"engine.environment.{name} leads to {value}, where no file is; put it there, "
                "mount it (runtime.mounts), or set the variable to null"
            )


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
