"""The recipe of the rehearsal model: `python -m steps.rehearsal.train --output DIR`.

Deterministic on one machine and one set of versions: every draw comes from a seeded generator.
"""

import argparse
import itertools
import json
import math
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from steps.record import sha256_file
from steps.rehearsal import notes, tokenizer

LAYERS = 15
SEQUENCE_TOKENS = 640
IGNORED = -100
"""Label that the loss skips."""


@dataclass(frozen=True)
class Phase:
    """One stage of the curriculum; `tokens` counts prompts, answers and no padding.

    `facts` bounds the facts of a note and `answered` those asked for; None: sizes as in evaluation.
    """

    tokens: int
    facts: tuple[int, int] | None
    answered: tuple[int, int] | None
    kinds: tuple[notes.Kind, ...] = notes.KINDS


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the code and the versions it runs on."""

    seed: int
    phases: tuple[Phase, ...]
    batch_tokens: int = 4096
    peak_rate: float = 2e-3
    warmup_steps: int = 50
    decay_share: float = 0.4
    weight_decay: float = 0.05
    muon_rate: float = 0.0


BASE = Recipe(
    seed=5,
    phases=(
        Phase(250_000, (2, 3), (2, 3), ("all",)),
        Phase(500_000, (2, 4), (2, 3)),
        Phase(800_000, (3, 10), (2, 6)),
        Phase(2_600_000, None, None),
    ),
    batch_tokens=2048,
    muon_rate=0.02,
    weight_decay=0.01,
)
FINE_TUNE = Recipe(seed=6, phases=(Phase(800_000, None, None),), peak_rate=1e-3, warmup_steps=20)


def configuration(layers: int = LAYERS) -> LlamaConfig:
    """Llama's architecture at 2.6 million parameters; 15 layers prune to 12 (20 %) and 10 (33 %)."""
    return LlamaConfig(
        vocab_size=len(tokenizer.TOKENS),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.BEGIN,
        eos_token_id=tokenizer.END,
        pad_token_id=tokenizer.PAD,
        attention_bias=False,
        mlp_bias=False,
    )


def untrained(seed: int, layers: int = LAYERS) -> LlamaForCausalLM:
    """Fresh weights, scaled for the width and depth.

    The library's standard deviation of 0.02 suits models of thousands of channels: at 128 it makes
    attention start out uniform, and copying then takes several times as many tokens to appear.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(configuration(layers))
    for name, weight in model.named_parameters():
        if name.endswith("_proj.weight"):
            nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.data.mul_(1 / math.sqrt(2 * layers))
    return model


def train(
    model: LlamaForCausalLM,
    recipe: Recipe,
    log: Path | None = None,
    snapshot: Callable[[], None] | None = None,
) -> None:
    """Train in place. Prints loss, speed and time left; `log` gets one JSON line per report."""
    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(True)
    _linear_in_bf16(model)
    total = sum(phase.tokens for phase in recipe.phases)
    optimizer = Optimizer(model, recipe)
    model.train()
    done, losses, start = 0, list[float](), time.monotonic()
    reported, saved = 0.0, start
    for step, (inputs, labels, tokens) in enumerate(_batches(recipe)):
        optimizer.scale(_schedule(recipe, step, done / total))
        loss = _loss(model, inputs, labels)
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done += tokens
        losses.append(loss.item())
        now = time.monotonic()
        if now - reported > 10 or done >= total:
            reported = now
            speed = done / (now - start)
            line = {"tokens": done, "loss": round(sum(losses) / len(losses), 4)}
            losses.clear()
            print(f"{line} {speed:,.0f} tokens/s, {(total - done) / speed:.0f} s left", flush=True)
            if snapshot and now - saved > 60:
                saved = now
                snapshot()
            if log:
                with log.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")
    model.eval()


class Optimizer:
    """Muon for the decoder's matrices (none with `muon_rate` 0), AdamW for everything else."""

    def __init__(self, model: LlamaForCausalLM, recipe: Recipe) -> None:
        matrices = [
            weight
            for name, weight in model.named_parameters()
            if recipe.muon_rate and weight.ndim == 2 and "embed" not in name
        ]
        taken = {id(weight) for weight in matrices}
        self.recipe = recipe
        self.share = 0.0
        self.adam = torch.optim.AdamW(
            [weight for weight in model.parameters() if id(weight) not in taken],
            lr=recipe.peak_rate,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
        )
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for weight in matrices:
            shapes.setdefault(weight.shape, []).append(weight)
        self.groups = [
            (weights, torch.zeros(len(weights), *shape)) for shape, weights in shapes.items()
        ]

    def scale(self, share: float) -> None:
        self.share = share
        for group in self.adam.param_groups:
            group["lr"] = self.recipe.peak_rate * share

    @torch.no_grad()
    def step(self) -> None:
        self.adam.step()
        rate = self.recipe.muon_rate * self.share
        for weights, momentum in self.groups:
            gradient = torch.stack([weight.grad for weight in weights])
            momentum.lerp_(gradient, 0.05)
            update = _orthogonal(gradient.lerp_(momentum, 0.95))
            update *= max(1.0, update.shape[1] / update.shape[2]) ** 0.5
            for weight, change in zip(weights, update, strict=True):
                weight.mul_(1 - rate * self.recipe.weight_decay).sub_(change, alpha=rate)


def _orthogonal(matrices: Tensor) -> Tensor:
    """Newton-Schulz: every singular value near 1; [n, rows, columns] in and out."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).float()


def save(model: LlamaForCausalLM, directory: Path, recipe: object) -> None:
    """Weights in bf16 under Hugging Face's names, configuration, tokenizer and manifest."""
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    weights = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embeddings
    }
    save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
    config = {**model.config.to_dict(), "architectures": ["LlamaForCausalLM"]}
    config["dtype"] = config["torch_dtype"] = "bfloat16"
    for name, content in (
        ("config.json", config),
        ("generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}),
    ):
        text = json.dumps(content, indent=1, sort_keys=True, default=str) + "\n"
        (temporary / name).write_text(text, encoding="utf-8")
    tokenizer.save(temporary)
    files = {
        path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in sorted(temporary.iterdir())
    }
    manifest = {"files": files, "recipe": recipe}
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    (temporary / "manifest.json").write_text(text, encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    os.rename(temporary, directory)


def load(directory: Path) -> LlamaForCausalLM:
    """A checkpoint that `save` wrote, in fp32 for further training."""
    fields = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    model = untrained(0, int(fields["num_hidden_layers"]))
    weights = {k: v.float() for k, v in load_file(directory / "model.safetensors").items()}
    missing = model.load_state_dict(weights, strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) - {"lm_head.weight"}:
        raise ValueError(f"{directory} is no rehearsal checkpoint: {missing}")
    model.tie_weights()
    return model


def described(recipe: Recipe) -> dict[str, object]:
    """The recipe with the versions it ran on, as it goes into the manifest."""
    versions = {
        "python": sys.version.split()[0],
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }
    return {**asdict(recipe), "versions": versions}


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


def _linear_in_bf16(model: nn.Module) -> None:
    """Matrix products in bf16, everything else in fp32: twice as fast, attention included.

    (Attention itself is slower backwards in bf16 on a CPU, so autocast would lose.)
    """

    class Bf16Linear(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            half = functional.linear(input.bfloat16(), self.weight.bfloat16())
            return half.float()

    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Bf16Linear


def _batches(recipe: Recipe) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Batches of about `batch_tokens`, of similar lengths: [n, longest] inputs and labels."""
    for number, phase in enumerate(recipe.phases):
        stream = _stream(recipe.seed + number, phase)
        spent = 0
        while spent < phase.tokens:
            pool = sorted(itertools.islice(stream, 512), key=lambda pair: len(pair[0]))
            order = _cut(pool, recipe.batch_tokens)
            random.Random(recipe.seed + spent).shuffle(order)
            for batch in order:
                inputs, labels = _padded(batch)
                tokens = sum(len(ids) for ids, _ in batch)
                spent += tokens
                yield inputs, labels, tokens
                if spent >= phase.tokens:
                    break


def _cut(pool: list[tuple[list[int], int]], limit: int) -> list[list[tuple[list[int], int]]]:
    batches: list[list[tuple[list[int], int]]] = [[]]
    for pair in pool:
        if batches[-1] and (len(batches[-1]) + 1) * len(pair[0]) > limit:
            batches.append([])
        batches[-1].append(pair)
    return batches


def _stream(seed: int, phase: Phase) -> Iterator[tuple[list[int], int]]:
    """Token ids of prompt and answer, and where the answer starts."""
    source = random.Random(seed)
    wild = notes.prompts("training", seed)
    while True:
        if phase.facts is None or phase.answered is None:
            prompt = next(wild)
        else:
            kind = source.choice(phase.kinds)
            facts = source.randint(*phase.facts)
            answered = facts if kind == "all" else min(facts, source.randint(*phase.answered))
            answered = min(answered, notes.MAX_ANSWER_FACTS)
            facts = answered if kind == "all" else facts
            prompt = notes.make(source, "training", kind, facts, answered)
        asked = [tokenizer.BEGIN, *tokenizer.encode(prompt.text)]
        yield [*asked, *tokenizer.encode(prompt.answer), tokenizer.END], len(asked)


def _padded(batch: list[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
    # Padding stands at the end and attention is causal, so no mask is needed.
    longest = max(len(ids) for ids, _ in batch)
    inputs = torch.full((len(batch), longest), tokenizer.PAD)
    labels = torch.full((len(batch), longest), IGNORED)
    for row, (ids, start) in enumerate(batch):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, start : len(ids)] = inputs[row, start : len(ids)]
    return inputs, labels


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m steps.rehearsal.train")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = untrained(BASE.seed)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    train(
        model,
        BASE,
        arguments.output.with_suffix(".log.jsonl"),
        lambda: save(model, arguments.output.with_suffix(".snapshot"), described(BASE)),
    )
    save(model, arguments.output, described(BASE))


if __name__ == "__main__":
    main()
