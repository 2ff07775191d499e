"""Checkpoints: what is refused, what a rewrite keeps, and that a kill costs nothing."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from steps.base.errors import UserError
from steps.prepare.checkpoint import stream
from steps.prepare.checkpoint.finite import refuse_not_finite
from steps.prepare.checkpoint.layout import BITS, Checkpoint, Tensor, open_checkpoint, read_shard
from steps.prepare.checkpoint.stream import Target, rewrite
from steps.prepare.prune.block import Block, prune
from tests import checkpoints
from tests.conftest import ROOT

INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00003.safetensors"


@dataclass(frozen=True)
class Same:
    """The transform that changes nothing."""

    recipe: object = "same"

    def targets(self, tensor: Tensor) -> tuple[Target, ...]:
        return (Target(tensor.name, tensor.dtype, tensor.shape),)

    def convert(self, tensor: Tensor, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        return chunks

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return dict(config)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoints.write(tmp_path / "source", checkpoints.llama(4), shards=3)


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# ---- what is refused ---------------------------------------------------------------------------

NORM = "model.layers.1.input_layernorm.weight"

BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "has no config.json"),
    "damaged config": (lambda d: (d / "config.json").write_text("{"), "config.json can't be read"),
    "deep config": (
        lambda d: (d / "config.json").write_text("[" * 100_000),
        "config.json can't be read .it is nested too deeply",
    ),
    "deep index": (lambda d: (d / INDEX).write_text('{"weight_map": ' + "[" * 100_000), "deeply"),
    "deep header": (
        lambda d: (d / SECOND).write_bytes(struct.pack("<Q", 9000) + b"[" * 9000),
        "the header of .* is damaged .it is nested too deeply",
    ),
    "no weights": (lambda d: (d / INDEX).unlink(), "neither model.safetensors.index.json nor"),
    "missing shard": (lambda d: (d / SECOND).unlink(), f"{SECOND} is missing; fetch it again"),
    "empty shard": (lambda d: (d / SECOND).write_bytes(b""), f"{SECOND} is truncated or no safe"),
    "truncated shard": (lambda d: os.truncate(d / SECOND, 9000), "9,000 bytes, its header says"),
    "html for a shard": (
        lambda d: (d / SECOND).write_text("<!doctype html><title>Sign in</title>"),
        "is truncated or no safetensors file",
    ),
    "header of garbage": (
        lambda d: (d / SECOND).write_bytes(struct.pack("<Q", 4) + b"\xff\xfe{}"),
        "the header of .* is damaged",
    ),
    "unknown dtype": (
        lambda d: edit_header(d / SECOND, lambda h: h[NORM].update(dtype="Q4_K")),
        f"{NORM} has the unknown dtype 'Q4_K'",
    ),
    "wrong dtype": (
        lambda d: edit_header(d / SECOND, lambda h: h[NORM].update(dtype="F32")),
        f"{NORM} has 128 bytes, which is not F32 of shape .64.",
    ),
    "wrong shape": (
        lambda d: edit_header(d / SECOND, lambda h: h[NORM].update(shape=[63])),
        "which is not BF16 of shape .63.",
    ),
    "a hole": (
        lambda d: edit_header(d / SECOND, lambda h: h.pop(NORM)),
        "the header of .* is damaged: .* doesn't begin where|bytes, its header says",
    ),
    "another dtype than declared": (
        lambda d: edit_json(d / "config.json", lambda c: c.update(torch_dtype="float16")),
        "config.json says float16, but most of the weights are BF16",
    ),
    "index names another shard": (
        lambda d: edit_json(
            d / INDEX, lambda i: i["weight_map"].update({"model.norm.weight": SECOND})
        ),
        f"says that model.norm.weight is in {SECOND}, but it is in model-00003-of-00003",
    ),
    "index names a tensor that isn't": (
        lambda d: edit_json(d / INDEX, lambda i: i["weight_map"].update({"x.weight": SECOND})),
        "x.weight is in .*, but it is in no shard",
    ),
    "index forgets a tensor": (
        lambda d: edit_json(d / INDEX, lambda i: i["weight_map"].pop(NORM)),
        f"doesn't list {NORM}, which is in {SECOND}",
    ),
    "index leaves its directory": (
        lambda d: edit_json(d / INDEX, lambda i: i["weight_map"].update({NORM: "../other"})),
        "names the file '../other', outside of it",
    ),
    "index without a map": (
        lambda d: edit_json(d / INDEX, lambda i: i.pop("weight_map")),
        "has no weight_map",
    ),
    "two shards hold a tensor": (
        lambda d: shutil.copyfile(d / SECOND, d / "model-00001-of-00003.safetensors"),
        "is in .*1-of-00003.safetensors and again in .*2-of-00003.safetensors",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_hang_together_is_refused_in_one_sentence(source: Path, case: str) -> None:
    damage, words = BAD[case]
    damage(source)
    with pytest.raises(UserError, match=words) as caught:
        open_checkpoint(source)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_untied_model_needs_its_head_and_a_tied_one_does_not(tmp_path: Path) -> None:
    tensors = checkpoints.llama(2)
    del tensors["lm_head.weight"]
    tied = checkpoints.write(tmp_path / "tied", tensors, config={"tie_word_embeddings": True})
    assert open_checkpoint(tied).shards
    untied = checkpoints.write(tmp_path / "untied", tensors)
    with pytest.raises(UserError, match=r"no lm_head.weight although config.json doesn't tie"):
        open_checkpoint(untied)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named_and_nothing_is_left(
    tmp_path: Path, dtype: str, value: float
) -> None:
    tensors = checkpoints.llama(3, dtype=dtype)
    name = "model.layers.1.mlp.down_proj.weight"
    _, shape, data = tensors[name]
    bits = np.float32(value).tobytes()[2:] if dtype == "BF16" else None
    odd = bits or np.array(value, np.float16 if dtype == "F16" else np.float32).tobytes()
    tensors[name] = (dtype, shape, data[: -len(odd)] + odd)
    source = checkpoints.write(tmp_path / "source", tensors, shards=3)
    with pytest.raises(UserError, match=f"{name} holds weights that are NaN or infinite"):
        rewrite(open_checkpoint(source), tmp_path / "out", Same())
    assert not (tmp_path / "out").exists()


def test_a_destination_in_use_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UserError, match="already exists; delete it or choose another place"):
        rewrite(open_checkpoint(source), tmp_path / "out", Same())
    assert contents(tmp_path / "out") == {"mine": b""}


def test_a_disk_too_small_is_noticed_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(stream.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"needs 0.0 GB, the disk has 0.0 GB free; make room"):
        rewrite(open_checkpoint(source), tmp_path / "out", Same())
    assert [path.name for path in (tmp_path / "out.partial").iterdir()] == ["journal.jsonl"]


# ---- what is kept ------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_rewrite_keeps_every_byte(tmp_path: Path, shards: int, workers: int) -> None:
    tensors = checkpoints.llama(4)
    tensors["model.norm.weight"] = ("F32", (64,), bytes(256))
    source = checkpoints.write(tmp_path / "source", tensors, shards=shards)
    done: list[int] = []
    checkpoint = open_checkpoint(source)
    rewrite(checkpoint, tmp_path / "out", Same(), workers=workers, advance=done.append)
    assert checkpoints.read(tmp_path / "out") == checkpoints.read(source)
    assert sum(done) == sum(len(data) for _, _, data in tensors.values())
    assert sorted(contents(tmp_path / "out")) == sorted(contents(source))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_every_tensor_is_aligned_to_its_dtype(tmp_path: Path) -> None:
    tensors: checkpoints.Tensors = {
        "odd": ("U8", (3,), b"abc"),
        "model.layers.0.a.weight": ("F32", (2,), bytes(8)),
    }
    source = checkpoints.write(tmp_path / "source", tensors)
    rewrite(open_checkpoint(source), tmp_path / "out", Same())
    for tensor in open_checkpoint(tmp_path / "out").tensors:
        assert tensor.offset % checkpoints.WIDTH[tensor.dtype] == 0


def test_a_tensor_larger_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHUNK", 128)
    source = checkpoints.write(tmp_path / "source", checkpoints.llama(2), shards=2)
    rewrite(open_checkpoint(source), tmp_path / "out", Same())
    assert checkpoints.read(tmp_path / "out") == checkpoints.read(source)


# ---- killed ------------------------------------------------------------------------------------


class Killed(BaseException):
    """Not an Exception, as a signal's isn't."""


def interrupted(source: Checkpoint, destination: Path, after: int) -> None:
    calls = 0

    def advance(size: int) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed

    with pytest.raises(Killed):
        rewrite(source, destination, Same(), advance=advance)


def written_again(checkpoint: Checkpoint, destination: Path, transform: Same) -> set[str]:
    """Shards that a resumed rewrite makes anew: those written since."""
    partial = destination.with_name(f"{destination.name}.partial")
    before = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.safetensors")}
    rewrite(checkpoint, destination, transform)
    after = {path.name: path.stat().st_mtime_ns for path in destination.glob("*.safetensors")}
    return {name for name, time in after.items() if before.get(name) != time}


@pytest.mark.parametrize("after", range(1, 15))
def test_interrupted_anywhere_it_resumes_to_the_same_bytes(
    source: Path, tmp_path: Path, after: int
) -> None:
    checkpoint = open_checkpoint(source)
    rewrite(checkpoint, tmp_path / "whole", Same())
    interrupted(checkpoint, tmp_path / "out", after)
    assert not (tmp_path / "out").exists()
    finished = len(list((tmp_path / "out.partial").glob("*.safetensors")))
    assert len(written_again(checkpoint, tmp_path / "out", Same())) == 3 - finished
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


FIRST = "model-00001-of-00003.safetensors"


def damage_first_shard(partial: Path) -> None:
    data = bytearray((partial / FIRST).read_bytes())
    data[-1] ^= 1
    (partial / FIRST).write_bytes(data)


def tear_journal(partial: Path) -> None:
    text = (partial / "journal.jsonl").read_text()
    (partial / "journal.jsonl").write_text(text[: text.index(FIRST) + 40])


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda partial: None, 1),
        (damage_first_shard, 2),
        (tear_journal, 3),
        (lambda partial: (partial / FIRST).unlink(), 2),
        (lambda partial: (partial / "journal.jsonl").unlink(), 3),
        (lambda partial: (partial / "journal.jsonl").write_bytes(b"\xff\x00"), 3),
        (lambda partial: (partial / "model-00009-of-00009.safetensors").touch(), 1),
    ],
)
def test_only_shards_whose_digest_holds_are_kept(
    source: Path, tmp_path: Path, damage: Callable[[Path], object], again: int
) -> None:
    checkpoint = open_checkpoint(source)
    rewrite(checkpoint, tmp_path / "whole", Same())
    interrupted(checkpoint, tmp_path / "out", 12)
    damage(tmp_path / "out.partial")
    assert len(written_again(checkpoint, tmp_path / "out", Same())) == again
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_shards_of_another_recipe_or_source_are_not_kept(source: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(source)
    interrupted(checkpoint, tmp_path / "out", 12)
    assert len(written_again(checkpoint, tmp_path / "out", Same("other"))) == 3
    interrupted(checkpoint, tmp_path / "next", 12)
    shutil.copyfile(source / SECOND, source / "copy")
    os.replace(source / "copy", source / SECOND)
    assert len(written_again(open_checkpoint(source), tmp_path / "next", Same())) == 3


CHILD = """
import sys
from pathlib import Path
from steps.prepare.prune.block import Block, prune
prune(Path(sys.argv[1]), Path(sys.argv[2]), Block(1, 2))
"""


def test_killed_by_sigkill_at_random_moments(tmp_path: Path) -> None:
    tensors = checkpoints.llama(8, hidden=1024)
    source = checkpoints.write(tmp_path / "source", tensors, shards=8)
    command = [sys.executable, "-c", CHILD, str(source)]
    subprocess.run([*command, str(tmp_path / "whole")], cwd=ROOT, check=True, timeout=60)
    partial = tmp_path / "out.partial"
    generator = random.Random(0)
    killed = 0
    for _ in range(8):
        child = subprocess.Popen([*command, str(tmp_path / "out")], cwd=ROOT)
        deadline = time.monotonic() + 30
        while not partial.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.02))
        child.send_signal(signal.SIGKILL)
        killed += child.wait(timeout=60) == -signal.SIGKILL
    assert killed, "every run was over before it could be killed"
    if not (tmp_path / "out").exists():
        subprocess.run([*command, str(tmp_path / "out")], cwd=ROOT, check=True, timeout=60)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


# ---- what the library opens --------------------------------------------------------------------


def relabelled(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The same file with another header."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt", "note": "x"}, "absent"])
def test_metadata_of_any_kind_that_the_library_reads(tmp_path: Path, metadata: object) -> None:
    tensors = checkpoints.llama(2)
    source = checkpoints.write(tmp_path / "source", tensors, shards=2)

    def change(header: dict[str, Any]) -> None:
        header.pop("__metadata__")
        if metadata != "absent":
            header["__metadata__"] = metadata

    for path in source.glob("*.safetensors"):
        relabelled(path, change)
        with safetensors.safe_open(path, "numpy"):
            pass
    prune(source, tmp_path / "out", Block(1, 1))
    assert checkpoints.read(tmp_path / "out") == {
        name: held for name, held in tensors.items() if "layers.1" not in name
    }


@pytest.mark.parametrize("metadata", [{"format": 3}, [], "pt", {"format": None}])
def test_metadata_that_the_library_refuses_is_refused(tmp_path: Path, metadata: object) -> None:
    source = checkpoints.write(tmp_path / "source", checkpoints.llama(1))
    relabelled(source / "model.safetensors", lambda header: header.update(__metadata__=metadata))
    with pytest.raises(safetensors.SafetensorError):
        safetensors.safe_open(source / "model.safetensors", "numpy").__enter__()
    with pytest.raises(UserError, match=r"header of .* is damaged"):
        open_checkpoint(source)


@pytest.mark.parametrize("dtype", BITS)
def test_every_dtype_that_is_known_here_the_library_knows(tmp_path: Path, dtype: str) -> None:
    """And as wide as here: it checks the bytes against dtype and shape."""
    path = tmp_path / "model.safetensors"
    size = 8 * BITS[dtype] // 8
    fields = {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}
    text = json.dumps({"x": fields}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    with safetensors.safe_open(path, "numpy") as opened:
        assert list(opened.keys()) == ["x"]
    assert [tensor.dtype for tensor in read_shard(path).tensors] == [dtype]


@pytest.mark.parametrize(
    ("dtype", "finite", "not_finite"),
    [
        ("F8_E4M3FNUZ", [0x00, 0x7F, 0xFF, 0x81], [0x80]),
        ("F8_E5M2FNUZ", [0x00, 0x7F, 0xFF, 0x81], [0x80]),
        ("F8_E4M3", [0x00, 0x7E, 0xFE, 0x80], [0x7F, 0xFF]),
        ("F8_E5M2", [0x00, 0x7B, 0xFB, 0x80], [0x7C, 0x7D, 0xFC, 0xFF]),
    ],
)
def test_which_bytes_of_fp8_are_no_numbers(
    dtype: str, finite: list[int], not_finite: list[int]
) -> None:
    tensor = Tensor("x", dtype, (1,), Path("shard"), 0, 1)
    for byte in finite:
        refuse_not_finite(tensor, memoryview(bytes([byte])))
    for byte in not_finite:
        with pytest.raises(UserError, match="NaN or infinite"):
            refuse_not_finite(tensor, memoryview(bytes([byte])))
