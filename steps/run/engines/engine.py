"""The interface of every engine."""

import gc
import importlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, compress, repeat
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from steps.base import threads
from steps.base.errors import UserError
from steps.config import options
from steps.config.engine import DiffusersEngine, NullEngine
from steps.config.engine import Engine as EngineConfig
from steps.config.generation import Generation, ImageGeneration
from steps.config.resolved import Resolved

Request = tuple[int, Sequence[int], Sequence[int]]
"""One sample for the engine: the caller's number, the token ids of its prompt, and the sequence of
token ids that ends its answer besides the end-of-sequence token (empty: none).
"""

Answer = tuple[int, "array[int]"]
"""The caller's number, and all token ids as 32-bit integers, the end-of-sequence token included.

LoadGen is shown the array's memory. It is read only: engines may hand out the same one twice.
"""


def asked(
    numbers: Sequence[int],
    indices: Iterable[int],
    prompts: Sequence[Sequence[int]],
    stops: Sequence[Sequence[int]],
) -> list[Request]:
    """Requests of samples by their indices in the dataset; `stops` is empty if it has none."""
    indices = list(indices)
    ends = map(stops.__getitem__, indices) if stops else repeat((), len(indices))
    return list(zip(numbers, map(prompts.__getitem__, indices), ends, strict=True))


def unstopped(prompts: Sequence[Sequence[int]]) -> list[Request]:
    """Requests of a warm-up, whose numbers no sample has."""
    return [(-1 - i, prompt, ()) for i, prompt in enumerate(prompts)]


PART, PART_WORDS = 512, 1 << 23
"""How many answers are passed on at once: so many, or as many as have so many words (32 MiB)."""


@dataclass
class Events:
    """The results of one step of an engine.

    `first` holds (number, first token id) of requests whose first token has come, `completed` the
    answers of finished ones. `idle`: the step only waited for more requests, so that how long it
    took says nothing.
    """

    first: list[tuple[int, int]] = field(default_factory=list)
    completed: list[Answer] = field(default_factory=list)
    idle: bool = False


@dataclass(slots=True)
class Batch:
    """Tokens of several samples as columns, so that a sample costs only a few bytes of handling.

    `tokens` holds their 32-bit ids one after the other, `counts` how many each sample has.
    """

    numbers: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    tokens: "array[int]" = field(default_factory=lambda: array("i"))

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> "Batch":
        if not answers:
            return NOTHING
        numbers, tokens = zip(*answers, strict=True)
        return cls(list(numbers), list(map(len, tokens)), array("i", b"".join(tokens)))

    @classmethod
    def of_first(cls, first: Sequence[tuple[int, int]]) -> "Batch":
        if not first:
            return NOTHING
        tokens = array("i", [token for _, token in first])
        return cls([number for number, _ in first], [1] * len(first), tokens)

    def only(self, chosen: Sequence[bool]) -> "Batch":
        """The marked ones, in order."""
        if all(chosen):
            return self
        ends = accumulate(self.counts)
        kept = zip(compress(self.counts, chosen), compress(ends, chosen), strict=True)
        answers = (self.tokens[end - count : end] for count, end in kept)
        return Batch.of(list(zip(compress(self.numbers, chosen), answers, strict=True)))

    def __len__(self) -> int:
        return len(self.numbers)


NOTHING = Batch()


class News(NamedTuple):
    """Events of one engine, in columns."""

    first: Batch = NOTHING
    completed: Batch = NOTHING

    @classmethod
    def of(cls, events: Events) -> "Iterator[News]":
        """In parts: memory for thousands of answers at once would return to the kernel each time
        and be mapped again page by page, which takes longer than everything else.
        """
        completed = events.completed
        longest = max((len(tokens) for _, tokens in completed), default=1)
        part = max(1, min(PART, PART_WORDS // max(longest, 1)))
        yield cls(Batch.of_first(events.first), Batch.of(completed[:part]))
        for at in range(part, len(completed), part):
            yield cls(completed=Batch.of(completed[at : at + part]))


@dataclass(frozen=True)
class Start:
    """What an engine starts with. `number`: its number among the run's engines, from 0.

    `first_tokens` off means that first tokens aren't reported (Offline); a picture has none.
    `caches`: the directory, relative to the checkout, below which an engine on accelerators keeps
    what it compiles. `noise`: the file with the latents that every picture starts from.
    """

    weights: Path
    config: EngineConfig
    generation: Generation | ImageGeneration
    first_tokens: bool
    number: int = 0
    caches: str = ""
    noise: Path | None = None


class Engine(Protocol):
    """An engine is used by one thread only: the one that started it."""

    def start(self, start: Start) -> None:
        """Load and be ready. Raises UserError if that fails."""

    def submit(self, requests: Sequence[Request]) -> None: ...

    def step(self) -> Events:
        """Advance all submitted requests by about one token."""

    def threads(self) -> int:
        """Threads of arithmetic as its libraries report; 0 if it computes nothing."""

    def resolved(self) -> Resolved:
        """What it made of its settings, once it has answered something."""

    def identity(self) -> dict[str, str]:
        """Name, version and kind of device, for the result: the same for all engines of a run."""

    def device(self) -> str:
        """Model name of the device it computes on; engines on the same one are equally fast."""


MAKERS = {
    "vllm": "steps.run.engines.vllm_engine:VllmEngine",
    "vllm-rocm": "steps.run.engines.vllm_engine:VllmEngine",
    "null": "steps.run.engines.null_engine:NullEngine",
    "diffusers": "steps.run.engines.diffusers_engine:DiffusersEngine",
}
"""Engines by the `kind` of their configuration; imported when a run starts one."""


def started(start: Start, warmup: Sequence[Sequence[int]]) -> Engine:
    """An engine that has loaded and answered the warm-up's prompts. Raises UserError if it computes
    with another number of threads than configured.
    """
    module, name = MAKERS[start.config.kind].split(":")
    engine = cast(Engine, getattr(importlib.import_module(module), name)())
    engine.start(start)
    require_threads(start.config, engine.threads())
    engine.submit(unstopped(warmup))
    missing = len(warmup)
    before = threads.spent()
    while missing:
        missing -= len(engine.step().completed)
    if engine.identity()["device"] == "cpu":
        found = threads.computed(before, threads.spent(), start.config.threads)
        _require_no_more(start.config, found)
    return engine


def require_taken(config: EngineConfig, environment: Path | None) -> None:
    """Raises UserError for what the engine of this environment or image doesn't take: its own list
    decides, as the shipped one may be of another build. `environment`: the manifest."""
    listed = None if environment is None else environment.with_name(options.FILE)
    if isinstance(config, NullEngine | DiffusersEngine):
        return  # neither has a list
    if listed is not None and listed.is_file():
        try:
            options.require(options.read(listed), config)
        except UserError as error:
            raise UserError(f"engine.{error}") from error


GC_THRESHOLD = 100_000
"""Allocations between collections of young objects during a test; Python's default is 700."""


def hold_off_collections() -> None:
    """Before a test. A collection would look at every prompt and note that there is, all at once;
    what a run makes has hardly any cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def require_threads(config: EngineConfig, computing: int) -> None:
    """Raises UserError if an engine's libraries report other threads than configured."""
    if computing != config.threads:
        raise UserError(
            f"the engine computes with {computing} threads, engine.threads is {config.threads}; "
            "set engine.threads to that number, or look in the log for what else sets it"
        )


def _require_no_more(config: EngineConfig, computed: int) -> None:
    """Too few isn't an error: a short warm-up may leave some of them without work."""
    if computed > config.threads:
        raise UserError(
            f"{computed} threads did the work of the engine's warm-up, more than its libraries "
            f"report, and engine.threads is {config.threads}; see the log for what starts them"
        )


def places(config: EngineConfig) -> int:
    """The requests that an engine works on at a time."""
    if isinstance(config, DiffusersEngine):
        return config.arguments.batch_size
    return config.arguments.max_num_seqs


def depth(config: EngineConfig) -> int:
    """The most requests that an engine gets at a time.

    Enough waiting ones that its scheduler never runs dry, few enough that adding them doesn't delay
    the first tokens of running ones; of pictures, which are made in whole batches, the next batch.
    """
    if isinstance(config, DiffusersEngine):
        return 2 * places(config)
    return places(config) * 5 // 4
