"""What differs between versions of vLLM, in one place.

V0 (0.8.5 and 0.9, and AMD's forks of them) schedules, samples and ends answers in one class, and
may return several tokens of a request at once. V1 is beside it in 0.9 and alone since 0.11.
"""

import dataclasses
import difflib
import importlib.metadata
import inspect
import logging
import os
import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

from steps.base import threads
from steps.base.errors import UserError
from steps.config import options

Version = Literal["V0", "V1"]

CHOICE = "VLLM_USE_V1"
"""Chooses one where both are there."""

ONE_PROCESS = "VLLM_ENABLE_V1_MULTIPROCESSING"
"""V1's engine core is in this process at "0"."""

SEQUENCE = "stop_seq_ids"
"""Name of a request's stop sequence: a field in AMD's vLLM, an extra argument elsewhere."""

ENVIRON_VALIDATION = "fail_on_environ_validation"

OURS = "ends_with_sequences"
"""Marks functions of vLLM that were replaced here."""


KNOWS_NOBIND = (0, 10)
"""The first release that can leave threads on a CPU unbound."""


KERNELS_BY_REGISTRY = (0, 10)
"""The first release that isn't emulated by replacing classes of V0's (emulation_v0.py)."""


def bind(count: int) -> None:
    """On a CPU, earlier releases end in a segmentation fault at "nobind": they get as many of this
    process's CPUs as the engine has threads. Call it before vLLM is imported."""
    if _before(installed("vllm") or "", KNOWS_NOBIND):
        cpus = sorted(os.sched_getaffinity(0))[:count]
        os.environ[threads.BINDING] = ",".join(map(str, cpus))


def emulate(release: str) -> None:
    """Let vLLM compute FP8 and MXFP4 on a CPU. Raises UserError anywhere else."""
    if _before(release, KERNELS_BY_REGISTRY):
        from steps.run.engines import emulation_v0

        emulation_v0.register()
        return
    from steps.run.engines import emulation

    emulation.register()


def _before(release: str, other: tuple[int, int]) -> bool:
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) < other


def installed(name: str) -> str | None:
    """The version of a package; None without it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def taken(kind: Any) -> Collection[str]:
    """The names that a class of vLLM takes."""
    if dataclasses.is_dataclass(kind):
        return {field.name for field in dataclasses.fields(kind)}
    return set(inspect.signature(kind).parameters)


def refuse_unknown(given: Collection[str], known: Collection[str], release: str) -> None:
    """Raises UserError for an engine argument that this release lacks: it would do nothing."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"the nearest is {near[0]}; " if near else ""
            raise UserError(
                f"vLLM {release} has no engine argument {name}; {hint}take it out of "
                "engine.arguments, or choose an environment or image whose vLLM has it"
            )


def refuse_unchosen(environment: Mapping[str, str], release: str) -> None:
    """Raises UserError where vLLM has V0 and V1 and nothing chooses: it would choose by itself, by
    the arguments and by the thread that it is started on."""
    from vllm.engine import llm_engine

    both = llm_engine.LLMEngine.__module__ == llm_engine.__name__
    if both and CHOICE not in environment:
        raise UserError(
            f"vLLM {release} has V0 and V1, and engine.environment.{CHOICE} doesn't say which; set "
            'it to "0" or "1"'
        )


def of(engine: Any, environment: Mapping[str, str], release: str) -> Version:
    """The version of an engine that has started. Raises UserError if another one was asked for."""
    found: Version = "V1" if ".v1." in type(engine).__module__ else "V0"
    asked = environment.get(CHOICE, found[1])
    if asked != found[1]:
        raise UserError(
            f"vLLM {release} started {found}, and engine.environment.{CHOICE} is {asked!r}; take "
            "it out, or choose an environment or image whose vLLM has the other"
        )
    return found


def first_token_only(limit: int, known: Collection[str]) -> dict[str, Any]:
    """The arguments with which a request has an output for its first token and one at its end, as
    far as this class of vLLM can: any other output only costs time."""
    return {"stream_interval": limit} if "stream_interval" in known else {}


def validated(known: Collection[str], unread: Collection[str]) -> dict[str, bool]:
    """The argument with which vLLM refuses variables of its own name that it doesn't know, where it
    has one and no such variable is kept."""
    kept = any(name.startswith(options.PREFIX) for name in unread)
    return {ENVIRON_VALIDATION: True} if ENVIRON_VALIDATION in known and not kept else {}


# ---- stop sequences ----------------------------------------------------------------------------


class StopSequences:
    """Ends the answers of an engine in this process at sequences of tokens.

    An answer ends with its sequence, like the reference's; and like it and AMD's patch it has to be
    longer than the sequence. AMD's vLLM does that itself. Elsewhere the function that decides
    whether an answer has ended is wrapped: a sequence costs a comparison of a few integers per
    token, and stop strings would need every answer as text.
    """

    def __init__(self, version: Version, environment: Mapping[str, str], release: str) -> None:
        self._version = version
        self._environment = environment
        self._release = release
        self._field = ""
        """The name of a field or argument of SamplingParams; "" before the first sequence."""

    def arguments(self, sequence: tuple[int, ...]) -> dict[str, Any]:
        """Arguments of a request's SamplingParams, but for AMD's field. Raises UserError if this
        vLLM can't end answers so."""
        if not self._field:
            self._field = self._installed()
        return {"extra_args": {SEQUENCE: list(sequence)}} if self._field == "extra_args" else {}

    def mark(self, parameters: Any, sequence: tuple[int, ...]) -> None:
        """Set AMD's field, which isn't an argument of SamplingParams."""
        if self._field == SEQUENCE:
            setattr(parameters, SEQUENCE, tuple(sequence))

    def _installed(self) -> str:
        from vllm import SamplingParams

        if self._version == "V0" and hasattr(SamplingParams, SEQUENCE):
            return SEQUENCE
        if "extra_args" not in taken(SamplingParams):
            raise UserError(
                f"vLLM {self._release} can't be given a stop sequence for each sample: its "
                f"SamplingParams has neither {SEQUENCE} nor extra_args; choose 0.9 or later, or "
                "AMD's"
            )
        if self._version == "V0":
            _wrap_v0(self._release)
        else:
            self._require_one_process()
            _wrap_v1(self._release)
        return "extra_args"

    def _require_one_process(self) -> None:
        if self._environment.get(ONE_PROCESS) != "0":
            raise UserError(
                "the dataset's stop sequences need vLLM's engine core in the engine's own process; "
                f'set engine.environment.{ONE_PROCESS} to "0"'
            )


def ends_with(tokens: Any, count: int, parameters: Any) -> bool:
    """Whether an answer of so many tokens ends with the stop sequence of its request."""
    wanted = (parameters.extra_args or {}).get(SEQUENCE)
    return bool(
        wanted
        and count > len(wanted)
        and count >= parameters.min_tokens
        and list(tokens[-len(wanted) :]) == wanted
    )


def _wrap_v0(release: str) -> None:
    from vllm.engine.output_processor.stop_checker import StopChecker
    from vllm.sequence import SequenceStatus

    plain = StopChecker.maybe_stop_sequence
    if hasattr(plain, OURS):
        return
    _require_known(plain, ["self", "seq", "new_char_count", "sampling_params"], release)

    def maybe_stop_sequence(
        self: Any, seq: Any, new_char_count: int, sampling_params: Any, *rest: Any, **more: Any
    ) -> None:
        plain(self, seq, new_char_count, sampling_params, *rest, **more)
        if not seq.is_finished() and ends_with(
            seq.get_output_token_ids(), seq.get_output_len(), sampling_params
        ):
            seq.status = SequenceStatus.FINISHED_STOPPED

    setattr(maybe_stop_sequence, OURS, True)
    StopChecker.maybe_stop_sequence = maybe_stop_sequence


def _wrap_v1(release: str) -> None:
    from vllm.v1.core.sched import scheduler, utils
    from vllm.v1.request import RequestStatus

    plain = scheduler.check_stop
    if hasattr(plain, OURS):
        return
    if plain is not utils.check_stop:
        raise UserError(_unknown(release))
    _require_known(plain, ["request", "max_model_len"], release)

    def check_stop(request: Any, *rest: Any, **more: Any) -> bool:
        if plain(request, *rest, **more):
            return True
        if ends_with(request.output_token_ids, request.num_output_tokens, request.sampling_params):
            request.status = RequestStatus.FINISHED_STOPPED
            return True
        return False

    setattr(check_stop, OURS, True)
    scheduler.check_stop = check_stop


def _require_known(function: Any, first: list[str], release: str) -> None:
    if list(inspect.signature(function).parameters)[: len(first)] != first:
        raise UserError(_unknown(release))


def _unknown(release: str) -> str:
    return (
        f"vLLM {release} decides in a way that this version of Reprise doesn't know when an answer "
        "has ended, so the dataset's stop sequences can't be kept; choose another release"
    )


# ---- logs --------------------------------------------------------------------------------------


class Once(logging.Filter):
    """Lets the first record that begins with some words pass, and no further one."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words
        self._seen = False

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith(self._words):
            return True
        first, self._seen = not self._seen, True
        return first


def quiet(version: Version) -> None:
    """V0 without a tokenizer warns of it at every request: a line a sample."""
    if version == "V0":
        logger = logging.getLogger("vllm.inputs.preprocess")
        if not any(isinstance(known, Once) for known in logger.filters):
            logger.addFilter(Once("Using None for EOS token id"))
