"""A mixture of experts and a model of Llama 3.1 405B's proportions, small, of random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from steps.prepare.prune.block import Block, prune
from tests import checkpoints

HIDDEN, HEADS, KEY_HEADS, VOCABULARY, LAYERS = 512, 16, 1, 64, 4
"""Of 405B: 16 query heads share a key head, the network is 3.25 times as wide as the stream."""

WIDE = 1664
EXPERTS = 4


def shapes(mixture: bool) -> dict[str, tuple[int, ...]]:
    head = HIDDEN // HEADS
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        for part, heads in (("q", HEADS), ("k", KEY_HEADS), ("v", KEY_HEADS)):
            found[f"{name}self_attn.{part}_proj.weight"] = (heads * head, HIDDEN)
        found[f"{name}self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        if mixture:
            moe = f"{name}block_sparse_moe."
            found[f"{moe}gate.weight"] = (EXPERTS, HIDDEN)
            for expert in range(EXPERTS):
                found[f"{moe}experts.{expert}.w1.weight"] = (WIDE, HIDDEN)
                found[f"{moe}experts.{expert}.w2.weight"] = (HIDDEN, WIDE)
                found[f"{moe}experts.{expert}.w3.weight"] = (WIDE, HIDDEN)
        else:
            for part in ("gate", "up"):
                found[f"{name}mlp.{part}_proj.weight"] = (WIDE, HIDDEN)
            found[f"{name}mlp.down_proj.weight"] = (HIDDEN, WIDE)
        for norm in ("input", "post_attention"):
            found[f"{name}{norm}_layernorm.weight"] = (HIDDEN,)
    return {**found, "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def written(home: Path, mixture: bool) -> Path:
    generator = np.random.default_rng(2)
    ones = np.full(HIDDEN, 0x3F80, np.uint16).tobytes()  # norms, or no logit differs from another
    tensors = {
        name: (
            "BF16",
            shape,
            ones if "norm" in name else checkpoints.random_bytes(generator, "BF16", shape),
        )
        for name, shape in shapes(mixture).items()
    }
    config: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "dtype": "bfloat16",
    }
    if mixture:
        config |= {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
        config |= {"num_local_experts": EXPERTS, "num_experts_per_tok": 2}
    name = "mixture" if mixture else "grouped"
    made = checkpoints.write(home / name, tensors, shards=3, config=config)
    spelling(made)
    return made


def spelling(directory: Path) -> None:
    """A tokenizer whose words are letters."""
    words = {"?": 0} | {chr(ord("a") + number): number + 1 for number in range(26)}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "?"},
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "?"}
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)):
        (directory / name).write_text(json.dumps(content), encoding="utf-8")


def pruned_shape(home: Path, mixture: bool) -> Path:
    source = written(home, mixture)
    pruned = home / f"{source.name}-pruned"
    prune(source, pruned, Block(1, 2))
    return pruned
