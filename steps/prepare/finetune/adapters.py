"""LoRA adapters: trained by child processes, one per accelerator, and merged shard by shard."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import canonical_json
from steps.config.compression import FinetuneConfig
from steps.prepare.checkpoint.layout import open_checkpoint
from steps.prepare.checkpoint.stream import rewrite
from steps.prepare.finetune import data, merge_transform
from steps.prepare.finetune.model import Event, Job

END_S = 30.0
"""How long children may take to end after SIGTERM."""


@dataclass(frozen=True)
class Trained:
    """Where the adapters are, and how they were trained."""

    directory: Path
    described: dict[str, object]


def train(
    training: FinetuneConfig,
    model: Path,
    state: Path,
    console: Console,
    files: Sequence[Path] = (),
) -> Trained:
    """Train, or continue from the last complete checkpoint in the directory `state`.

    UserError for samples that can't be read, too little memory, a loss that isn't finite, and
    processes that hang.
    """
    state.mkdir(exist_ok=True)
    recipe = canonical_json(training.model_dump(mode="json"))
    kept = state / "recipe.json"
    if not kept.exists() or kept.read_text(encoding="utf-8") != recipe:
        shutil.rmtree(state)
        state.mkdir()
        data.write(training.data, model, training.cutoff_len, state, files)
        kept.write_text(recipe, encoding="utf-8")
    job = Job(training=training, model=str(model), state=str(state))
    written = state / "job.json"
    written.write_text(job.model_dump_json(), encoding="utf-8")
    last = None
    progress = None
    # Closed at once: however this ends, no child may outlive it.
    with closing(_events(training, written)) as events:
        for event in events:
            if event.error:
                raise UserError(event.error)
            if progress is None and event.steps:
                progress = console.progress("fine-tune", event.steps, "steps")
                progress.add(event.step)
            elif progress and last and event.step > last.step:
                progress.add(event.step - last.step)
            last = event
    if progress:
        progress.close()
    if last is None or not last.adapters:
        raise UserError(
            f"the training of {model} ended without adapters and without a reason; see the "
            f"end of {console.log}"
        )
    described = {**training.model_dump(mode="json"), **last.measured, "versions": last.versions}
    return Trained(Path(last.adapters), described)


def _events(training: FinetuneConfig, job: Path) -> Generator[Event, None, None]:
    """The first child's reports; children are ended when this ends, also by an exception."""
    module = ["-m", "steps.prepare.finetune.child", str(job)]
    if training.processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone"]
        module = [*launcher, f"--nproc-per-node={training.processes}", *module]
    process = subprocess.Popen(
        [sys.executable, *module],
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    hung = threading.Event()
    timer = _timer(training, process, hung)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if not line.startswith(Event.MARK):
                print(line, end="")
                continue
            timer.cancel()
            timer = _timer(training, process, hung)
            yield Event.model_validate_json(line.removeprefix(Event.MARK))
        status = process.wait(END_S)
    finally:
        timer.cancel()
        _end(process)
    if hung.is_set():
        raise UserError(
            f"no step of training was done for {training.stall_limit_s:.0f} s, so it was ended; "
            "what is trained is kept; raise compression.finetune.stall_limit_s if steps take that "
            "long"
        )
    if status:
        raise UserError(
            f"a process of the training ended with status {status}; what is trained is kept; see "
            "the log for its last message"
        )


def _timer(
    training: FinetuneConfig, process: "subprocess.Popen[str]", hung: threading.Event
) -> threading.Timer:
    def end() -> None:
        hung.set()
        _end(process)

    timer = threading.Timer(training.stall_limit_s, end)
    timer.daemon = True
    timer.start()
    return timer


def _end(process: "subprocess.Popen[str]") -> None:
    """A launcher's children too: they are in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(END_S)


def merge(
    model: Path,
    adapters: Path,
    destination: Path,
    *,
    partial: Path | None = None,
    workers: int = 1,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Write `model` with peft's `adapters` added to its weights; the other arguments are
    `rewrite`'s.

    UserError for adapters of weights that the model doesn't have.
    """
    source = open_checkpoint(model)
    transform = merge_transform.read(source, adapters)
    rewrite(source, destination, transform, partial=partial, workers=workers, advance=advance)
