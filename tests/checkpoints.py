"""Small checkpoints in the layout of Llama, written by the safetensors library."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "U8": "uint8"}
WIDTH = {"BF16": 2, "F16": 2, "F32": 4, "U8": 1}

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
"""Name to dtype, shape, bytes."""


def random_bytes(generator: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> bytes:
    """Normally distributed weights; any byte for U8."""
    if dtype == "U8":
        return generator.integers(0, 256, shape, np.uint8).tobytes()
    values = (generator.standard_normal(shape) * 0.02).astype(np.float32)
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype(np.float16 if dtype == "F16" else np.float32).tobytes()


def llama(layers: int, hidden: int = 64, dtype: str = "BF16", seed: int = 0) -> Tensors:
    """The tensors of a Llama with two of a layer's seven matrices."""
    generator = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (50, hidden)}
    for layer in range(layers):
        name = f"model.layers.{layer}."
        shapes[f"{name}self_attn.q_proj.weight"] = (hidden, hidden)
        shapes[f"{name}mlp.down_proj.weight"] = (hidden, 2 * hidden)
        shapes[f"{name}input_layernorm.weight"] = (hidden,)
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (50, hidden)}
    return {
        name: (dtype, shape, random_bytes(generator, dtype, shape))
        for name, shape in shapes.items()
    }


def mixtral(layers: int, experts: int = 2, hidden: int = 64) -> Tensors:
    """The tensors of a Mixtral, as its published checkpoints name them."""
    generator = np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (50, hidden)}
    for layer in range(layers):
        name = f"model.layers.{layer}."
        moe = f"{name}block_sparse_moe."
        shapes[f"{name}self_attn.q_proj.weight"] = (hidden, hidden)
        shapes[f"{moe}gate.weight"] = (experts, hidden)
        for expert in range(experts):
            shapes[f"{moe}experts.{expert}.w1.weight"] = (2 * hidden, hidden)
            shapes[f"{moe}experts.{expert}.w2.weight"] = (hidden, 2 * hidden)
            shapes[f"{moe}experts.{expert}.w3.weight"] = (2 * hidden, hidden)
        shapes[f"{name}input_layernorm.weight"] = (hidden,)
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (50, hidden)}
    return {
        name: ("BF16", shape, random_bytes(generator, "BF16", shape))
        for name, shape in shapes.items()
    }


def write_shard(path: Path, tensors: Tensors) -> None:
    # The library takes addresses: the buffers have to live until it has returned.
    buffers = {name: np.frombuffer(data, np.uint8) for name, (_, _, data) in tensors.items()}
    held = {
        name: safetensors.TensorSpec(
            dtype=NAMES[dtype],
            shape=list(shape),
            data_ptr=buffers[name].ctypes.data,
            data_len=len(data),
        )
        for name, (dtype, shape, data) in tensors.items()
    }
    path.write_bytes(safetensors.serialize(held, {"format": "pt"}))


def write(
    directory: Path,
    tensors: Tensors,
    *,
    shards: int = 1,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """A checkpoint directory; tensors are dealt to the shards in order."""
    directory.mkdir(parents=True)
    layers = {name.split(".")[2] for name in tensors if name.startswith("model.layers.")}
    stated = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": len(layers),
        "tie_word_embeddings": False,
    }
    text = json.dumps({**stated, **(config or {})})
    (directory / "config.json").write_text(text, encoding="utf-8")
    (directory / "tokenizer.json").write_text("{}", encoding="utf-8")
    if shards == 1:
        write_shard(directory / "model.safetensors", tensors)
        return directory
    names = list(tensors)
    where = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        held = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        write_shard(directory / file, {name: tensors[name] for name in held})
        where |= dict.fromkeys(held, file)
    total = sum(len(data) for _, _, data in tensors.values())
    index = json.dumps({"metadata": {"total_size": total}, "weight_map": where})
    (directory / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    return directory


def read(directory: Path) -> Tensors:
    """Every tensor of a directory, as the library reads it."""
    found: Tensors = {}
    where = {}
    files = sorted(directory.glob("*.safetensors"))
    for path in files:
        for name, held in safetensors.deserialize(path.read_bytes()):
            assert name not in found
            where[name] = path.name
            found[name] = (held["dtype"], tuple(held["shape"]), bytes(held["data"]))
    if len(files) > 1:
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        assert index["weight_map"] == where
        assert index["metadata"]["total_size"] == sum(len(data) for _, _, data in found.values())
    return found
