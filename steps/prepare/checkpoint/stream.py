"""Rewrite a checkpoint shard by shard: in bounded memory, resumed after a kill.

A transform defines each new tensor; this module moves the bytes. Shards are made under a
temporary name below a partial directory, journalled with their digest, and the directory is moved
into place as a whole when the last one is finished.
"""

import fnmatch
import hashlib
import inspect
import json
import math
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

from steps.base.errors import UserError
from steps.base.record import canonical_json, partial_directory
from steps.prepare.checkpoint.config_forms import both_forms
from steps.prepare.checkpoint.finite import refuse_not_finite
from steps.prepare.checkpoint.journal import NAME, Finished, Journal
from steps.prepare.checkpoint.layout import BITS, CONFIG, INDEX, SINGLE, Checkpoint, Shard, Tensor

CHUNK = 1 << 20
"""Bytes read at a time: a multiple of every element and quantization group, and small enough for
the caches of a core."""

SIDE_FILES = (
    *("generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json"),
    *("vocab*", "merges.txt", "chat_template*", "*.jinja", "*.model", "*.py"),
    *("preprocessor_config.json", "processor_config.json", "LICENSE*", "NOTICE*", "USE_POLICY*"),
)
"""A model's files besides weights and config.json; copied unchanged."""


@dataclass(frozen=True)
class Target:
    """A tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * BITS[self.dtype] // 8


class Transform(Protocol):
    """The change of a checkpoint's tensors and config.json."""

    @property
    def recipe(self) -> object:
        """A JSON value that identifies the transform: equal values make equal shards."""

    def targets(self, tensor: Tensor) -> tuple[Target, ...]:
        """The tensors that replace this one, in the order of `convert`'s bytes; () drops it."""

    def convert(self, tensor: Tensor, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        """The bytes of all its targets. Each chunk is overwritten when the next one is read."""

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """config.json of the result."""


@dataclass(frozen=True)
class _Plan:
    """A shard to be written: `moves` in the order of the file."""

    file: str
    metadata: Mapping[str, str]
    moves: tuple[tuple[Tensor, tuple[Target, ...]], ...]

    @property
    def targets(self) -> Iterator[Target]:
        return (target for _, targets in self.moves for target in targets)

    @property
    def header(self) -> bytes:
        return file_header(self.targets, self.metadata)

    @property
    def size(self) -> int:
        return len(self.header) + sum(target.size for target in self.targets)


def rewrite(
    source: Checkpoint,
    destination: Path,
    transform: Transform,
    *,
    partial: Path | None = None,
    workers: int = 1,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Write `source`, transformed, to `destination` (absent or an empty directory).

    Shards that a killed call left in `partial` (beside the destination if not given) are kept if
    source, transform and code are the same and their digests match. `workers` shards are made at
    once, each by a thread with a few chunks of memory. `advance` gets the number of source bytes
    done. UserError for weights that aren't finite, a full disk, or a destination in use; finished
    shards stay in `partial`.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise UserError(f"{destination} already exists; delete it or choose another place")
    partial = partial or partial_directory(destination)
    partial.mkdir(parents=True, exist_ok=True)
    plans = _plan(source, transform)
    recipe = [transform.recipe, source.fingerprint, _code(transform)]
    journal = Journal(partial, canonical_json(recipe))
    _remove_others(partial, {*journal.finished, NAME})
    due = [plan for plan in plans if plan.file not in journal.finished]
    _check_disk(partial, due)
    done = {plan.file for plan in plans} - {plan.file for plan in due}
    lock = threading.Lock()

    def count(size: int) -> None:
        with lock:
            advance(size)

    count(sum(tensor.size for plan in plans if plan.file in done for tensor, _ in plan.moves))
    _write_all(due, partial, transform, journal, workers, count)
    _finish(source, partial, transform, plans)
    journal.delete()
    destination.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, destination)


def _code(transform: Transform) -> str:
    """The digest of the code that makes shards: an output never mixes those of two versions."""
    home = Path(__file__).parent
    own = Path(inspect.getfile(type(transform)))
    return hashlib.sha256(
        b"".join(path.read_bytes() for path in [*sorted(home.glob("*.py")), own])
    ).hexdigest()


def _plan(source: Checkpoint, transform: Transform) -> list[_Plan]:
    kept: list[tuple[Shard, list[tuple[Tensor, tuple[Target, ...]]]]] = []
    names: dict[str, str] = {}
    for shard in source.shards:
        moves = []
        for tensor in shard.tensors:
            targets = transform.targets(tensor)
            for target in targets:
                if target.name in names:
                    raise UserError(
                        f"{source.directory}: {tensor.name} and {names[target.name]} would both "
                        f"become {target.name}; this checkpoint's names can't be followed"
                    )
                names[target.name] = tensor.name
            if targets:
                moves.append((tensor, targets))
        # Wide elements first, as the library writes them: each tensor is aligned to its dtype.
        moves.sort(key=lambda move: -max(BITS[target.dtype] for target in move[1]))
        if moves:
            kept.append((shard, moves))
    if not kept:
        raise UserError(f"{source.directory}: no tensor would be left")
    single = len(source.shards) == 1 and source.shards[0].path.name == SINGLE
    return [
        _Plan(
            SINGLE if single else f"model-{number:05d}-of-{len(kept):05d}.safetensors",
            shard.metadata,
            tuple(moves),
        )
        for number, (shard, moves) in enumerate(kept, start=1)
    ]


def file_header(targets: Iterable[Target], metadata: Mapping[str, str]) -> bytes:
    """The head of a safetensors file: length, JSON, blanks up to a multiple of eight."""
    fields: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    position = 0
    for target in targets:
        fields[target.name] = {
            "dtype": target.dtype,
            "shape": target.shape,
            "data_offsets": [position, position + target.size],
        }
        position += target.size
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _check_disk(directory: Path, plans: list[_Plan]) -> None:
    needed = sum(plan.size for plan in plans)
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f"{directory} needs {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free; "
            "make room and run it again"
        )


def _remove_others(directory: Path, kept: set[str]) -> None:
    for path in directory.iterdir():
        if path.name not in kept:
            path.unlink()


def _write_all(
    plans: list[_Plan],
    directory: Path,
    transform: Transform,
    journal: Journal,
    workers: int,
    advance: Callable[[int], None],
) -> None:
    stop = threading.Event()

    def make(plan: _Plan) -> None:
        temporary = directory / f"{plan.file}.unfinished"
        finished = _write(plan, temporary, transform, stop, advance)
        if finished:
            os.replace(temporary, directory / plan.file)
            journal.add(plan.file, finished)

    with ThreadPoolExecutor(workers) as pool:
        try:
            jobs = [pool.submit(make, plan) for plan in plans]
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:
            # Reached by an interrupt too: without it the pool would finish every shard first.
            pending = [job for job in jobs if not job.done()]
            if pending:
                stop.set()
                pool.shutdown(cancel_futures=True)
        for job in jobs:
            if job.done() and not job.cancelled():
                job.result()


def _write(
    plan: _Plan,
    path: Path,
    transform: Transform,
    stop: threading.Event,
    advance: Callable[[int], None],
) -> Finished | None:
    """The finished shard, or None if it was stopped."""
    header = plan.header
    digest = hashlib.sha256(header)
    buffer = memoryview(bytearray(CHUNK))
    source = plan.moves[0][0].path
    with path.open("wb") as out, source.open("rb", buffering=0) as stream:
        out.write(header)
        for tensor, _ in plan.moves:
            for part in transform.convert(tensor, _chunks(stream, tensor, buffer)):
                if stop.is_set():
                    return None
                out.write(part)
                digest.update(part)
            advance(tensor.size)
        size = out.tell()
    if size != plan.size:
        raise AssertionError(f"{plan.file} has {size} bytes, its header says {plan.size}")
    return Finished(digest.hexdigest(), size)


def _chunks(stream: FileIO, tensor: Tensor, buffer: memoryview) -> Iterator[memoryview]:
    stream.seek(tensor.offset)
    left = tensor.size
    while left:
        part = buffer[: min(left, len(buffer))]
        filled = 0
        while filled < len(part):
            count = stream.readinto(part[filled:])
            if not count:
                raise UserError(f"{tensor.path} ended early: it changed while it was read")
            filled += count
        refuse_not_finite(tensor, part)
        yield part
        left -= len(part)


def copy_side_files(source: Path, destination: Path) -> None:
    """The model's files that don't change with its weights."""
    for path in sorted(source.iterdir()):
        if path.is_file() and any(fnmatch.fnmatch(path.name, one) for one in SIDE_FILES):
            shutil.copyfile(path, destination / path.name)


def _finish(source: Checkpoint, directory: Path, transform: Transform, plans: list[_Plan]) -> None:
    """Everything but the shards; small, so each call writes it again."""
    copy_side_files(source.directory, directory)
    _write_json(directory / CONFIG, both_forms(transform.config(source.config)))
    if [plan.file for plan in plans] == [SINGLE]:
        return
    total = sum(target.size for plan in plans for target in plan.targets)
    where = {target.name: plan.file for plan in plans for target in plan.targets}
    _write_json(
        directory / INDEX,
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))},
    )


def _write_json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
