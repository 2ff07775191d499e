"""Compressed copies of a Llama checkpoint directory, for the accuracy study and the test bed.

Quantization is simulated: weights are rounded to the format's grid and stored in bf16 again, so
any engine loads the result and no speed-up can be measured from it. Every function writes next to
`destination` first and then renames, replacing what was there.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from steps.base.errors import UserError
from steps.base.record import sha256_file
from steps.prepare.checkpoint.config_forms import both_forms
from steps.prepare.checkpoint.layout import open_checkpoint
from steps.prepare.checkpoint.stream import rewrite
from steps.prepare.prune.block import Block, prune_transform

Format = Literal["fp8", "int2"]
GROUP = 32

_LINEAR = re.compile(r"^model\.layers\.\d+\..*_proj\.weight$")


def quantize_simulated(source: Path, destination: Path, format: Format) -> None:
    """Round every decoder linear weight to `format`; embeddings, norms and head stay as they are.

    "fp8": e4m3, one scale per tensor. "int2": four levels between each group's minimum and maximum,
    groups of 32 along the input dimension. UserError for another format, a source that isn't a
    checkpoint, or a width that 32 doesn't divide.
    """
    formats: dict[str, Callable[[Tensor], Tensor]] = {"fp8": _fp8, "int2": _int2}
    if format not in formats:
        raise UserError(f"unknown format {format!r}: choose one of {', '.join(formats)}")
    weights, config = _read(source)
    rounded = {
        name: formats[format](tensor.float()).bfloat16() if _LINEAR.match(name) else tensor
        for name, tensor in weights.items()
    }
    _write(source, destination, rounded, config, {"simulated_quantization": format})


def prune_depth(source: Path, destination: Path, first: int, last: int) -> None:
    """Drop the decoder layers `first` to `last` (both included, counted from 0) and renumber.

    UserError when that leaves no layer or names one that doesn't exist.
    """
    checkpoint = open_checkpoint(source)
    transform = prune_transform(checkpoint, Block(first, last))
    with replacing(destination) as temporary:
        rewrite(checkpoint, temporary, transform)
        origin = sha256_file(source / "model.safetensors")
        write_manifest(temporary, {"dropped_layers": [first, last], "source_sha256": origin})


def write_manifest(directory: Path, recipe: object) -> None:
    """Write manifest.json: digest and size in bytes of every other file, and how they were made."""
    files = {
        str(path.relative_to(directory)): {
            "sha256": sha256_file(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / "manifest.json"
    }
    manifest = {"files": files, "recipe": recipe}
    write_json(directory / "manifest.json", manifest)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """An empty directory that replaces `directory` if the block ends without an error."""
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(directory, ignore_errors=True)
        os.replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fp8(weight: Tensor) -> Tensor:
    grid = torch.float8_e4m3fn
    scale = weight.abs().max().clamp(min=1e-12) / torch.finfo(grid).max
    return (weight / scale).to(grid).float() * scale


def _int2(weight: Tensor) -> Tensor:
    rows, columns = weight.shape
    if columns % GROUP:
        raise UserError(f"int2 needs a width that {GROUP} divides, this weight is {columns} wide")
    groups = weight.view(rows, columns // GROUP, GROUP)
    low = groups.amin(-1, keepdim=True)
    step = ((groups.amax(-1, keepdim=True) - low) / 3).clamp(min=1e-12)
    return (((groups - low) / step).round() * step + low).view(rows, columns)


def _read(source: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        return load_file(source / "model.safetensors"), config
    except (OSError, ValueError) as error:
        raise UserError(f"{source} isn't a checkpoint directory: {error}") from error


def _write(
    source: Path,
    destination: Path,
    weights: dict[str, Tensor],
    config: dict[str, Any],
    change: dict[str, object],
) -> None:
    with replacing(destination) as temporary:
        for path in source.iterdir():
            if path.name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
                shutil.copyfile(path, temporary / path.name)
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        write_json(temporary / "config.json", both_forms(config))
        origin = sha256_file(source / "model.safetensors")
        write_manifest(temporary, {**change, "source_sha256": origin})
