"""A mixture of experts and a model with Llama 3.1 405B's proportions, pruned and in MXFP4, in vLLM.

Weights are random: what is compared are two ways to the same numbers.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steps.checkpoint.layout import open_checkpoint
from steps.checkpoint.quantize import Mxfp4Config, mxfp4_transform
from steps.checkpoint.rounded import Rounded
from steps.checkpoint.stream import rewrite
from steps.prune.block import Block, prune
from tests import checkpoints
from tests.conftest import ROOT, planned
from tests.interpreter import interpreter

pytestmark = pytest.mark.engine

HIDDEN, HEADS, KEY_HEADS, VOCABULARY, LAYERS = 512, 16, 1, 64, 4
"""Of 405B: 16 query heads share a key head, the network is 3.25 times as wide as the stream."""

WIDE = 1664
EXPERTS = 4

SCRIPT = """
import json, os, sys
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
               "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_TARGET_DEVICE": "cpu"}
from vllm import LLM, SamplingParams
from steps.sut import emulation
emulation.register()
prompts = [{"prompt_token_ids": [1, 5, 9 + n, 20]} for n in range(4)]
settings = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logprobs=1,
                          detokenize=False)
found = {}
for path in sys.argv[1:]:
    engine = LLM(path, dtype="bfloat16", enforce_eager=True, max_model_len=64, max_num_seqs=4,
                 skip_tokenizer_init=True, gpu_memory_utilization=0.1)
    outputs = [one.outputs[0] for one in engine.generate(prompts, settings, use_tqdm=False)]
    found[path.rsplit("/", 1)[1]] = [
        [list(output.token_ids), [step[token].logprob for token, step in
                                  zip(output.token_ids, output.logprobs)]]
        for output in outputs
    ]
    del engine  # its end takes the process groups along, so it has to come before the next
print(json.dumps(found))
"""


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
    tensors = {
        name: ("BF16", shape, checkpoints.random_bytes(generator, "BF16", shape))
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
    return checkpoints.write(home / name, tensors, shards=3, config=config)


def test_both_shapes_go_through_pruning_and_mxfp4_into_vllm(tmp_path: Path) -> None:
    made = []
    for mixture in (False, True):
        source = written(tmp_path, mixture)
        pruned = tmp_path / f"{source.name}-pruned"
        prune(source, pruned, Block(1, 2))
        checkpoint = open_checkpoint(pruned)
        exclude = ("lm_head", "*.gate") if mixture else ("lm_head",)
        settings = Mxfp4Config(activations="none", scale_calculation_mode="even", exclude=exclude)
        chosen = mxfp4_transform(checkpoint, settings)
        rewrite(checkpoint, tmp_path / f"{source.name}-rounded", Rounded(chosen))
        made.append(tmp_path / f"{source.name}-rounded")
        if not mixture:  # vLLM has no kernel of the format for experts on a CPU
            rewrite(checkpoint, tmp_path / f"{source.name}-packed", chosen)
            made.append(tmp_path / f"{source.name}-packed")
    plan = planned()
    run = next(job for job in plan.jobs if job.step == "performance_run")
    python = interpreter(plan, run, tmp_path)
    done = subprocess.run(
        [python, "-c", SCRIPT, *map(str, made)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["grouped-packed"] == found["grouped-rounded"], "the emulation is exact"
    for answers in found.values():
        for tokens, logprobs in answers:
            assert len(tokens) == 12
            assert np.isfinite(logprobs).all()
    assert len({json.dumps(answers) for answers in found.values()}) == 2
