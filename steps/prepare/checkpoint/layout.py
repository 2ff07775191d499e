"""What a checkpoint directory holds, read from its headers, and whether it is consistent."""

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.untrusted import json_of

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
CONFIG = "config.json"

BITS: Mapping[str, int] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Bits of an element by dtype, all that safetensors 0.8.0 knows. FNUZ is the FP8
of MI300X and MI325X."""

TORCH_NAMES: Mapping[str, str] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
"""How config.json spells the dtypes of unquantized weights."""

UNTIED = ("llama", "mistral", "mixtral", "qwen2", "qwen3")
"""Model types whose configuration in transformers defaults to tie_word_embeddings=False."""

LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a shard; `offset` in bytes from the start of the file `path`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    size: int


@dataclass(frozen=True)
class Shard:
    """A safetensors file; `tensors` in the order of their bytes."""

    path: Path
    size: int
    metadata: Mapping[str, str]
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose index, shards and config.json agree.

    `config` is config.json's content; `fingerprint` changes when a file of it is replaced.
    """

    directory: Path
    config: Mapping[str, Any]
    shards: tuple[Shard, ...]
    fingerprint: str

    @property
    def tensors(self) -> Iterable[Tensor]:
        return (tensor for shard in self.shards for tensor in shard.tensors)

    @property
    def quantized(self) -> bool:
        return bool(self.config.get("quantization_config"))


def open_checkpoint(directory: Path) -> Checkpoint:
    """Read every header, no weights. UserError says what is missing or contradicts itself."""
    config = _read_json(directory / CONFIG)
    names = _shard_names(directory)
    shards = tuple(read_shard(directory / name) for name in sorted(set(names.values())))
    if not shards:
        shards = (read_shard(directory / SINGLE),)
    _compare_with_index(directory, names, shards)
    checkpoint = Checkpoint(directory, config, shards, _fingerprint(config, shards))
    _check_dtype(checkpoint)
    _check_head(checkpoint)
    return checkpoint


def layers(config: Mapping[str, Any], directory: Path) -> int:
    """num_hidden_layers of a config; UserError if it has no such number."""
    count = config.get("num_hidden_layers")
    if not isinstance(count, int) or count < 1:
        raise UserError(
            f"{directory / CONFIG} has no num_hidden_layers; is this a decoder's checkpoint?"
        )
    return count


def read_shard(path: Path) -> Shard:
    """The header of one file, checked as the safetensors library does: no hole, no overlap."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else LARGEST_HEADER
            if length > min(LARGEST_HEADER, size):
                raise UserError(f"{path} is truncated or no safetensors file; fetch it again")
            header = json_of(stream.read(length))
        metadata = _metadata(header.pop("__metadata__", None))
        entries = [_entry(path, 8 + length, name, fields) for name, fields in header.items()]
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; fetch it again") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); restore it") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the header of {path} is damaged ({error}); fetch it again") from error
    entries.sort(key=lambda tensor: (tensor.offset, tensor.size))
    position = 8 + length
    for tensor in entries:
        if tensor.offset != position:
            raise UserError(
                f"the header of {path} is damaged: {tensor.name} doesn't begin where the tensor "
                "before it ends; fetch it again"
            )
        position += tensor.size
    if position != size:
        raise UserError(f"{path} has {size:,} bytes, its header says {position:,}; fetch it again")
    return Shard(path, size, metadata, tuple(entries))


def _metadata(value: Any) -> Mapping[str, str]:
    """The library takes null for no metadata, and refuses values that aren't text."""
    if value is None:
        return {}
    if not all(isinstance(text, str) for text in value.values()):
        raise ValueError("__metadata__ has values that aren't text")
    return dict(value)


def _entry(path: Path, base: int, name: str, fields: Mapping[str, Any]) -> Tensor:
    dtype, shape = fields["dtype"], tuple(int(length) for length in fields["shape"])
    begin, end = fields["data_offsets"]
    if dtype not in BITS:
        raise UserError(f"{path}: {name} has the unknown dtype {dtype!r}; convert the checkpoint")
    if (end - begin) * 8 != math.prod(shape) * BITS[dtype]:
        raise UserError(
            f"{path}: {name} has {end - begin:,} bytes, which is not {dtype} of shape "
            f"{list(shape)}; fetch it again"
        )
    return Tensor(name, dtype, shape, path, base + begin, end - begin)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json_of(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path.parent} isn't a checkpoint directory: it has no {path.name}"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); restore it") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; restore it")
    return content


def _shard_names(directory: Path) -> dict[str, str]:
    """The index: tensor name to file name; empty for a checkpoint of one file."""
    if not (directory / INDEX).exists():
        if not (directory / SINGLE).exists():
            raise UserError(
                f"{directory} isn't a checkpoint directory: it has neither {INDEX} nor {SINGLE}"
            )
        return {}
    names = _read_json(directory / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{directory / INDEX} has no weight_map; fetch it again")
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise UserError(f"{directory / INDEX} names the file {name!r}, outside of it; fix it")
    return names


def _compare_with_index(directory: Path, names: Mapping[str, str], shards: Iterable[Shard]) -> None:
    held: dict[str, str] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in held:
                raise UserError(
                    f"{directory}: {tensor.name} is in {held[tensor.name]} and again in "
                    f"{shard.path.name}; delete the shard that doesn't belong there"
                )
            held[tensor.name] = shard.path.name
    if not names:
        return
    for name, file in names.items():
        if held.get(name) != file:
            where = f"is in {held[name]}" if name in held else "is in no shard"
            raise UserError(
                f"{directory / INDEX} says that {name} is in {file}, but it {where}; "
                "fetch the checkpoint again"
            )
    if unlisted := sorted(held.keys() - names.keys()):
        raise UserError(
            f"{directory / INDEX} doesn't list {unlisted[0]}, which is in {held[unlisted[0]]}; "
            "fetch the checkpoint again"
        )


def _check_dtype(checkpoint: Checkpoint) -> None:
    """The declared dtype must be that of most weights, or engines convert silently."""
    declared = checkpoint.config.get("dtype", checkpoint.config.get("torch_dtype"))
    bytes_of: dict[str, int] = {}
    for tensor in checkpoint.tensors:
        bytes_of[tensor.dtype] = bytes_of.get(tensor.dtype, 0) + tensor.size
    most = max(bytes_of, key=lambda dtype: bytes_of[dtype], default="")
    if checkpoint.quantized or declared is None or TORCH_NAMES.get(most) == declared:
        return
    raise UserError(
        f"{checkpoint.directory / CONFIG} says {declared}, but most of the weights are {most}; "
        "correct its dtype or fetch the weights it describes"
    )


def _check_head(checkpoint: Checkpoint) -> None:
    """lm_head may be absent only if the embeddings are tied."""
    names = {tensor.name for tensor in checkpoint.tensors}
    causal = any(
        str(name).endswith("ForCausalLM") for name in checkpoint.config.get("architectures") or ()
    )
    if not causal or "model.embed_tokens.weight" not in names or "lm_head.weight" in names:
        return
    untied = checkpoint.config.get("model_type") in UNTIED
    if not checkpoint.config.get("tie_word_embeddings", not untied):
        raise UserError(
            f"{checkpoint.directory} has no lm_head.weight although {CONFIG} doesn't tie it to the "
            "embeddings; set tie_word_embeddings or fetch the missing weights"
        )


def _fingerprint(config: Mapping[str, Any], shards: Iterable[Shard]) -> str:
    """A digest of headers, sizes and modification times: cheap, and changes with every file."""
    total = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for shard in shards:
        changed = shard.path.stat().st_mtime_ns
        total.update(f"{shard.path.name}\0{shard.size}\0{changed}\n".encode())
        for tensor in shard.tensors:
            total.update(
                f"{tensor.name}\0{tensor.dtype}\0{tensor.shape}\0{tensor.offset}\n".encode()
            )
    return total.hexdigest()
