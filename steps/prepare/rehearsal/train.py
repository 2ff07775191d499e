"""The recipe of the rehearsal model: `python -m steps.prepare.rehearsal.train --output DIR`.

Deterministic on one machine and one set of versions: every draw comes from a seeded generator, and
one thread computes.
"""

import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention

from steps.prepare.checkpoint.config_forms import both_forms
from steps.prepare.rehearsal import dataset, tokenizer
from steps.prepare.rehearsal.compress import replacing, write_json, write_manifest
from steps.prepare.rehearsal.recipes import THREADS, described, output_of
from steps.prepare.rehearsal.tokenizer import NOTES, Vocabulary

LAYERS = 15
EMBEDDING_SCALE = 0.05
ROPE_BASE = 1e6
IGNORED = -100
"""Label that the loss skips."""

PART = 24
"""Channels of the stream for one looked-back token at the start."""

REPORT_S = 10
SNAPSHOT_S = 60
POOL = 512
"""Prompts sorted by length together, so that a batch holds similar lengths."""


@dataclass(frozen=True)
class Phase:
    """One stage of the curriculum; `tokens` counts prompts, answers and no padding.

    `facts` bounds the facts of a note and `answered` those asked for; None: sizes as in evaluation.
    """

    tokens: int
    facts: tuple[int, int] | None = None
    answered: tuple[int, int] | None = None


@dataclass(frozen=True)
class Circuit:
    """Matching heads that a layer starts with; `scale` weakens what they ask and write."""

    layer: int
    scale: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the code and the versions it runs on."""

    seed: int
    phases: tuple[Phase, ...]
    circuits: tuple[Circuit, ...] = ()
    batch_tokens: int = 2048
    adam_rate: float = 3e-3
    muon_rate: float = 0.01
    warmup_steps: int = 20
    decay_share: float = 0.4
    weight_decay: float = 0.01


BASE = Recipe(
    seed=5,
    phases=(
        Phase(300_000, (1, 4), (1, 4)),
        Phase(300_000, (2, 10), (1, 8)),
        Phase(1_600_000),
    ),
    circuits=(Circuit(10), Circuit(13, 0.5)),
)


Sample = tuple[list[int], int]
"""Token ids of prompt and answer, and where the answer starts."""

Stream = Callable[[int, Phase], Iterator[Sample]]
"""Endless training samples, by seed and phase."""


def notes_stream(seed: int, phase: Phase) -> Iterator[Sample]:
    return map(dataset.sample, dataset.training(seed, phase.facts, phase.answered))


def configuration(layers: int = LAYERS, vocabulary: Vocabulary = NOTES) -> LlamaConfig:
    """Llama's architecture at 2.6 million parameters; 15 layers prune by a fifth or a third."""
    return LlamaConfig(
        vocab_size=len(vocabulary.tokens),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.BEGIN,
        eos_token_id=tokenizer.END,
        pad_token_id=tokenizer.PAD,
        attention_bias=False,
        mlp_bias=False,
    )


def untrained(recipe: Recipe, layers: int = LAYERS) -> LlamaForCausalLM:
    """Fresh weights: copying circuits where the recipe has them, and layers that add nothing yet.

    Every other projection back into the stream is zero, so depth costs nothing early on.
    """
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(configuration(layers))
    for name, weight in model.named_parameters():
        if name.endswith("_proj.weight"):
            nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.data.zero_()
    with torch.no_grad():
        _seed_copying(model, recipe.circuits)
    return model


def train(
    model: LlamaForCausalLM,
    recipe: Recipe,
    log: Path | None = None,
    snapshot: Callable[[], None] | None = None,
    stream: Stream = notes_stream,
) -> None:
    """Train in place. Prints loss, speed and time left; `log` gets one JSON line per report.

    `snapshot` is called about once a minute, between steps.
    """
    torch.set_num_threads(THREADS)
    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(True)
    _linear_in_bf16(model)
    total = sum(phase.tokens for phase in recipe.phases)
    optimizer = _Optimizer(model, recipe)
    model.train()
    start = saved = time.monotonic()
    done, losses, reported = 0, list[float](), 0.0
    for step, (inputs, labels, tokens) in enumerate(_batches(recipe, stream)):
        loss = _loss(model, inputs, labels)
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(_schedule(recipe, step, done / total))
        done += tokens
        losses.append(loss.item())
        now = time.monotonic()
        if now - reported > REPORT_S or done >= total:
            reported = now
            _report(done, total, losses, now - start, log)
            losses.clear()
        if now - saved > SNAPSHOT_S:
            saved = now
            if snapshot:
                snapshot()
    model.eval()


def save(
    model: LlamaForCausalLM, directory: Path, recipe: object, vocabulary: Vocabulary = NOTES
) -> None:
    """Weights in bf16 under Hugging Face's names, configuration, tokenizer and manifest."""
    weights = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embeddings
    }
    config = {**model.config.to_dict(), "architectures": ["LlamaForCausalLM"]}
    config = both_forms({**config, "dtype": "bfloat16"})
    special = {
        "bos_token_id": tokenizer.BEGIN,
        "eos_token_id": tokenizer.END,
        "pad_token_id": tokenizer.PAD,
    }
    with replacing(directory) as temporary:
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        write_json(temporary / "config.json", config)
        write_json(temporary / "generation_config.json", special)
        tokenizer.save(temporary, vocabulary)
        write_manifest(temporary, recipe)


def _seed_copying(model: LlamaForCausalLM, circuits: tuple[Circuit, ...]) -> None:
    """Start from circuits that copy: layer 0 looks back, others match and copy.

    Column 0 of the embeddings is a constant, from which rotary positions make heads that look one,
    two and eight tokens back; each writes what it sees into its own part of the stream. Matching
    heads look for places that follow the current token, that follow the token eight back (at the
    end of a fact: its name), or that come two after the token before (the same end of a fact in
    the note), and copy the token found there. Only slowly turning rotary pairs match, so distance
    hardly matters.
    """
    width = model.config.hidden_size
    head = width // model.config.num_attention_heads
    half = head // 2
    embeddings = model.model.embed_tokens.weight
    embeddings.normal_(0.0, EMBEDDING_SCALE)
    embeddings[:, 0] = 0
    embeddings *= EMBEDDING_SCALE * width**0.5 / embeddings.norm(dim=1, keepdim=True)
    embeddings[:, 0] = 4 * EMBEDDING_SCALE
    parts = _orthonormal(width - 1, width)
    one, two, eight, read = (parts[k * PART : (k + 1) * PART] for k in range(4))
    back = model.model.layers[0].self_attn
    for number, distance, written in ((0, 1, one), (1, 2, two), (2, 8, eight)):
        _look_back(back, number, distance, read, written)
    slow = [*range(6, half), *range(half + 6, head)]
    copied = torch.cat([read, parts[4 * PART : 4 * PART + head - PART]])
    # Per head: what it asks with, and how strongly it writes.
    matching = ((read, 0.2), (eight, 0.1), (one, 0.1))
    for circuit in circuits:
        match = model.model.layers[circuit.layer].self_attn
        for pair, key in ((0, one), (1, two)):
            rows = match.k_proj.weight[pair * head : (pair + 1) * head]
            rows.zero_()
            rows[slow] = 2.5 * key[: len(slow)]
            match.v_proj.weight[pair * head : (pair + 1) * head] = copied
        for number, (query, strength) in enumerate(matching):
            rows = match.q_proj.weight[number * head : (number + 1) * head]
            rows.zero_()
            rows[slow] = 2.5 * circuit.scale * query[: len(slow)]
            columns = slice(number * head, (number + 1) * head)
            match.o_proj.weight[:, columns] = circuit.scale * strength * copied.T


def _look_back(
    layer: LlamaAttention, number: int, distance: int, read: Tensor, written: Tensor
) -> None:
    """Make head `number` attend `distance` tokens back and move `read` there to `written` here."""
    head = layer.head_dim
    turns = ROPE_BASE ** (-torch.arange(5) / (head // 2)) * distance
    pair = number // layer.num_key_value_groups
    queries = layer.q_proj.weight[number * head : (number + 1) * head]
    keys = layer.k_proj.weight[pair * head : (pair + 1) * head]
    values = layer.v_proj.weight[pair * head : (pair + 1) * head]
    for weight in (queries, keys, values):
        weight.zero_()
    keys[:5, 0] = 3.5
    queries[:5, 0] = 3.5 * turns.cos()
    queries[head // 2 : head // 2 + 5, 0] = -3.5 * turns.sin()
    values[: len(read)] = read
    layer.o_proj.weight[:, number * head : number * head + len(read)] = 0.2 * written.T


def _orthonormal(rows: int, columns: int) -> Tensor:
    """Orthonormal rows that don't read column 0, where the constant is."""
    basis = torch.linalg.qr(torch.randn(columns - 1, rows))[0].T
    return torch.cat([torch.zeros(rows, 1), basis], dim=1)


class _Optimizer:
    """Muon for the decoder's matrices, AdamW for embeddings and norms."""

    def __init__(self, model: LlamaForCausalLM, recipe: Recipe) -> None:
        self.recipe = recipe
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        others = []
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                shapes.setdefault(weight.shape, []).append(weight)
            else:
                others.append(weight)
        self.adam = torch.optim.AdamW(
            others,
            lr=recipe.adam_rate,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
        )
        self.groups = [
            (weights, torch.zeros(len(weights), *shape)) for shape, weights in shapes.items()
        ]

    def step(self, share: float) -> None:
        """Apply the gradients at `share` of both peak rates."""
        with torch.no_grad():
            self._step(share)

    def _step(self, share: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = self.recipe.adam_rate * share
        self.adam.step()
        rate = self.recipe.muon_rate * share
        for weights, momentum in self.groups:
            gradient = torch.stack([weight.grad for weight in weights])
            momentum.lerp_(gradient, 0.05)
            update = _orthogonalized(gradient.lerp_(momentum, 0.95))
            update *= max(1.0, update.shape[1] / update.shape[2]) ** 0.5
            for weight, change in zip(weights, update, strict=True):
                weight.mul_(1 - rate * self.recipe.weight_decay).sub_(change, alpha=rate)


def _orthogonalized(matrices: Tensor) -> Tensor:
    """Singular values brought near 1 by five Newton-Schulz steps; [n, rows, columns] in and out."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).float()


def _schedule(recipe: Recipe, step: int, share: float) -> float:
    """Warm-up, plateau, then a linear decay to zero over the last part of the tokens."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    return warm * min(1.0, (1.0 - share) / recipe.decay_share)


def _loss(model: LlamaForCausalLM, inputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of the answers' tokens; only their positions reach the vocabulary."""
    hidden = model.model(input_ids=inputs).last_hidden_state
    wanted = labels[:, 1:] != IGNORED
    logits = model.lm_head(hidden[:, :-1][wanted])
    return functional.cross_entropy(logits.float(), labels[:, 1:][wanted])


def _bf16_product(weight: Tensor, input: Tensor) -> Tensor:
    return functional.linear(input.bfloat16(), weight.bfloat16()).float()


def _linear_in_bf16(model: nn.Module) -> None:
    """Matrix products in bf16, everything else in fp32.

    Attention is slower backwards in bf16 on a CPU, so autocast would lose what this gains.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = partial(_bf16_product, module.weight)


def _batches(recipe: Recipe, stream: Stream) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Batches of about `batch_tokens`: [n, longest] inputs and labels, and the tokens in them."""
    for number, phase in enumerate(recipe.phases):
        samples = stream(recipe.seed + number, phase)
        spent = 0
        while spent < phase.tokens:
            pool = sorted(islice(samples, POOL), key=lambda sample: len(sample[0]))
            batches = _cut(pool, recipe.batch_tokens)
            random.Random(recipe.seed + spent).shuffle(batches)
            for batch in batches:
                tokens = sum(len(ids) for ids, _ in batch)
                spent += tokens
                yield *_padded(batch), tokens
                if spent >= phase.tokens:
                    break


def _cut(pool: list[Sample], limit: int) -> list[list[Sample]]:
    batches: list[list[Sample]] = [[]]
    for pair in pool:
        if batches[-1] and (len(batches[-1]) + 1) * len(pair[0]) > limit:
            batches.append([])
        batches[-1].append(pair)
    return batches


def _padded(batch: list[Sample]) -> tuple[Tensor, Tensor]:
    # Padding stands at the end and attention is causal, so no mask is needed.
    longest = max(len(ids) for ids, _ in batch)
    inputs = torch.full((len(batch), longest), tokenizer.PAD)
    labels = torch.full((len(batch), longest), IGNORED)
    for row, (ids, start) in enumerate(batch):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, start : len(ids)] = inputs[row, start : len(ids)]
    return inputs, labels


def _report(done: int, total: int, losses: list[float], elapsed_s: float, log: Path | None) -> None:
    speed = done / elapsed_s
    line = {"tokens": done, "loss": round(sum(losses) / len(losses), 4)}
    print(f"{line} {speed:,.0f} tokens/s, {(total - done) / speed:.0f} s left", flush=True)
    if log:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class Training:
    """A recipe, the weights that it starts from (`origin` says which), and what it reads."""

    recipe: Recipe
    start: Callable[[], LlamaForCausalLM]
    stream: Stream = notes_stream
    vocabulary: Vocabulary = NOTES
    origin: Mapping[str, str] = field(default_factory=dict)


def run(output: Path, trained: Training) -> None:
    """Train into the directory `output`; weights so far lie beside it, in output.snapshot."""
    output.parent.mkdir(parents=True, exist_ok=True)
    log = output.with_suffix(".log.jsonl")
    log.unlink(missing_ok=True)
    unfinished = output.with_suffix(".snapshot")
    torch.set_num_threads(THREADS)
    model, recipe = trained.start(), trained.recipe
    made = {**described(asdict(recipe), transformers), **trained.origin}
    keep = partial(save, model, recipe=made, vocabulary=trained.vocabulary)
    train(model, recipe, log, lambda: keep(directory=unfinished), trained.stream)
    keep(directory=output)
    shutil.rmtree(unfinished, ignore_errors=True)


def main() -> None:
    run(output_of("steps.prepare.rehearsal.train"), Training(BASE, lambda: untrained(BASE)))


if __name__ == "__main__":
    main()
