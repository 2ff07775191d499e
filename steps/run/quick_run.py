"""Answers the first evaluation prompts: seconds of an engine, before hours of runs. It
doesn't use LoadGen, so nothing here is an MLPerf result.
"""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from steps import ROOT
from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest, Workspace
from steps.base.step import main
from steps.config.run_results import EngineIdentity, QuickRunResult
from steps.config.runs import QuickRunConfig
from steps.prepare import samples
from steps.run.engines import accelerators, caches, pinning
from steps.run.engines.engine import Start, asked, require_taken, require_threads
from steps.run.engines.vllm_engine import VllmEngine

ANSWERS = "answers.json"


def step(
    config: QuickRunConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Leaves answers.json: token ids per prompt, the end of sequence included."""
    require_taken(config.engine, inputs.get("environment"))
    accelerators.require(config.engine.placement)
    weights = Manifest.read(inputs["model"])
    weights.require_whole()
    loaded = samples.load(inputs["dataset"], stops=config.generation.stop_sequences)
    prompts = loaded.evaluation[: config.samples]
    if len(prompts) < config.samples:
        raise UserError(
            f"a quick check needs {config.samples} prompts, the dataset has {len(prompts)}; lower "
            "benchmark.quick_samples"
        )
    if config.engine.placement.kinds:
        place = pinning.take_place(config.engine, 0)
        folder = ROOT / caches.of_run(inputs["environment"]) / "engine-0"
        os.environ.update(caches.use(folder) if place.devices else {})
    engine = VllmEngine()
    with _limited(config.engine.start_limit_s, f"vLLM is not ready on {weights.directory}"):
        engine.start(Start(weights.directory, config.engine, config.generation, first_tokens=False))
    require_threads(config.engine, engine.threads())
    numbers = range(len(prompts))
    engine.submit(asked(numbers, numbers, prompts, loaded.stops))
    progress = console.progress("quick run", len(prompts))
    answers: dict[int, list[int]] = {}
    begun = time.monotonic()
    while len(answers) < len(prompts):
        with _limited(config.engine.stall_limit_s, "vLLM makes no progress"):
            events = engine.step()
        answers.update((number, answer.tolist()) for number, answer in events.completed)
        progress.add(len(events.completed))
    progress.close()
    ordered = [answers[number] for number in range(len(prompts))]
    text = json.dumps(ordered, separators=(",", ":"))
    (workspace.directory / ANSWERS).write_text(text + "\n", encoding="utf-8")
    tokens = sum(map(len, ordered))
    print(f"{tokens} tokens in {time.monotonic() - begun:.1f} s")
    workspace.result = QuickRunResult(
        samples=len(prompts),
        output_tokens=tokens,
        engine=EngineIdentity.model_validate({**engine.identity(), "threads": engine.threads()}),
    ).dumped()


@contextmanager
def _limited(seconds: float, what: str) -> Iterator[None]:
    """Raises UserError in the main thread if the block takes longer."""

    def expire(number: int, frame: FrameType | None) -> None:
        raise UserError(f"{what} after {seconds:.0f} s; see the log")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    main("quick_run", QuickRunConfig, step)
