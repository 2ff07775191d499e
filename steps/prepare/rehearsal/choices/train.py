"""The recipe of the small mixture of experts: `python -m steps.prepare.rehearsal.choices.train
--output DIR`.

Mixtral's architecture and names, so that vLLM loads it as it is: 4 experts in each layer, of which
the router takes 2 for a token. Deterministic on one machine and one set of versions.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from steps.prepare.rehearsal.choices import questions
from steps.prepare.rehearsal.choices.questions import LETTERS, NUMBERS, TOKENS, Question
from steps.prepare.rehearsal.compress import replacing, write_json, write_manifest
from steps.prepare.rehearsal.recipes import THREADS, advance, described, output_of
from steps.prepare.rehearsal.tokenizer import BEGIN, END, PAD

IGNORED = -100
"""Label that the loss skips."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the code and the versions it runs on."""

    seed: int = 3
    hidden: int = 64
    layers: int = 2
    heads: int = 2
    experts: int = 4
    taken: int = 2
    inner: int = 64
    steps: int = 1200
    batch: int = 32
    rate: float = 4e-3
    said: float = 10.0
    balance: float = 0.01
    rope: float = 10000.0


class Attention(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.heads, width = recipe.heads, recipe.hidden
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            layer(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(
            _turned(q, turns), _turned(k, turns), v, is_causal=True
        )
        projected: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return projected


def _turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions, halves against each other."""
    first, second = x.chunk(2, dim=-1)
    return x * turns[0] + torch.cat((-second, first), dim=-1) * turns[1]


class Expert(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.w1 = nn.Linear(recipe.hidden, recipe.inner, bias=False)
        self.w2 = nn.Linear(recipe.inner, recipe.hidden, bias=False)
        self.w3 = nn.Linear(recipe.hidden, recipe.inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.w2(functional.silu(self.w1(x)) * self.w3(x))
        return found


class Experts(nn.Module):
    """All experts compute, and those that the router doesn't take count 0."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.taken = recipe.taken
        self.gate = nn.Linear(recipe.hidden, recipe.experts, bias=False)
        self.experts = nn.ModuleList(Expert(recipe) for _ in range(recipe.experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mixture, and how unevenly experts are taken: 1 if all are taken alike."""
        shares = self.gate(x).softmax(dim=-1)
        top, chosen = shares.topk(self.taken, dim=-1)
        weights = torch.zeros_like(shares).scatter(-1, chosen, top / top.sum(-1, keepdim=True))
        mixed = sum(
            weights[..., number : number + 1] * expert(x)
            for number, expert in enumerate(self.experts)
        )
        count = len(self.experts)
        used = (weights > 0).float().mean(dim=(0, 1)) / self.taken
        return mixed, count * (used * shares.mean(dim=(0, 1))).sum()


class Layer(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(recipe.hidden, eps=1e-5)
        self.self_attn = Attention(recipe)
        self.post_attention_layernorm = nn.RMSNorm(recipe.hidden, eps=1e-5)
        self.block_sparse_moe = Experts(recipe)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x = x + self.self_attn(self.input_layernorm(x), turns)
        mixed, uneven = self.block_sparse_moe(self.post_attention_layernorm(x))
        return x + mixed, uneven


class Stack(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(len(TOKENS), recipe.hidden)
        self.layers = nn.ModuleList(Layer(recipe) for _ in range(recipe.layers))
        self.norm = nn.RMSNorm(recipe.hidden, eps=1e-5)


class Mixture(nn.Module):
    """Submodules are called as Mixtral's, whose checkpoint this becomes."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = Stack(recipe)
        self.lm_head = nn.Linear(recipe.hidden, len(TOKENS), bias=False)
        nn.init.normal_(self.model.embed_tokens.weight, std=0.5)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and how unevenly experts are taken on average."""
        turns = self._turns(tokens.shape[1])
        x, uneven = self.model.embed_tokens(tokens), torch.zeros(())
        for layer in self.model.layers:
            x, one = layer(x, turns)
            uneven = uneven + one / len(self.model.layers)
        return self.lm_head(self.model.norm(x)), uneven

    def _turns(self, length: int) -> tuple[Tensor, Tensor]:
        width = self.recipe.hidden // self.recipe.heads
        speeds = self.recipe.rope ** (-torch.arange(0, width, 2) / width)
        angles = torch.arange(length)[:, None] * speeds[None, :]
        both = torch.cat((angles, angles), dim=-1)
        return both.cos(), both.sin()


def train(recipe: Recipe) -> Mixture:
    torch.set_num_threads(THREADS)
    torch.manual_seed(recipe.seed)
    model = Mixture(recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.01)
    streams = [
        questions.questions("training", recipe.seed, effort, questions.KINDS)
        for effort in questions.EFFORTS
    ]
    begun = time.monotonic()
    for step in range(recipe.steps):
        share = step / recipe.steps
        rate = recipe.rate * min(1.0, step / 50) * (0.5 + 0.5 * math.cos(math.pi * share))
        tokens, labels = _batch(streams, recipe.batch)
        logits, uneven = model(tokens[:, :-1])
        loss = _loss(logits.flatten(0, 1), labels[:, 1:].flatten(), recipe.said)
        advance(optimizer, loss + recipe.balance * uneven, rate)
        if step % 100 == 0 or step == recipe.steps - 1:
            spent = time.monotonic() - begun
            print(f"step {step}: loss {loss.item():.4f}, {spent:.0f} s", flush=True)
    model.eval()
    return model


def _loss(logits: Tensor, labels: Tensor, said: float) -> Tensor:
    """What is answered counts `said` times as much as the many words before it, which are drawn."""
    each = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    answers = torch.tensor([TOKENS.index(token) for token in (*LETTERS, *NUMBERS)])
    weights = torch.where(torch.isin(labels, answers), said, 1.0) * (labels != IGNORED)
    return (each * weights).sum() / weights.sum()


def _batch(streams: list[Iterator[Question]], size: int) -> tuple[Tensor, Tensor]:
    drawn = [next(streams[number % len(streams)]) for number in range(size)]
    longest = max(len(one.prompt) + len(one.answer) for one in drawn)
    tokens = torch.full((size, longest), PAD)
    labels = torch.full((size, longest), IGNORED)
    for row, one in enumerate(drawn):
        begin, end = len(one.prompt), len(one.prompt) + len(one.answer)
        tokens[row, :end] = torch.tensor([*one.prompt, *one.answer])
        labels[row, begin:end] = torch.tensor(one.answer)
    return tokens, labels


def save(model: Mixture, directory: Path) -> None:
    """Weights in bf16, configuration, tokenizer and manifest."""
    recipe = model.recipe
    weights = {
        name: value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()
    }
    special = {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PAD}
    config = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "vocab_size": len(TOKENS),
        "hidden_size": recipe.hidden,
        "intermediate_size": recipe.inner,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.heads,
        "head_dim": recipe.hidden // recipe.heads,
        "num_local_experts": recipe.experts,
        "num_experts_per_tok": recipe.taken,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": recipe.rope,
        "rope_parameters": {"rope_type": "default", "rope_theta": recipe.rope},
        "hidden_act": "silu",
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
        **special,
    }
    with replacing(directory) as temporary:
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        write_json(temporary / "config.json", config)
        write_json(temporary / "generation_config.json", special)
        questions.save(temporary)
        write_manifest(temporary, described(asdict(recipe)))


def main() -> None:
    output = output_of("steps.prepare.rehearsal.choices.train")
    save(train(Recipe()), output)


if __name__ == "__main__":
    main()
