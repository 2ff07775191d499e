"""The recipe of the scorers of shapes: `python -m steps.judge.scoring.narrow.train --output DIR`.

A CLIP that tells captions of shapes apart, an Inception-v3 that learned to name what a drawing
shows, and the statistics of its features over one drawing of each evaluated caption: the files that
steps/judge/scoring/images.py reads. Deterministic on one machine and one set of versions.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from steps.judge.scoring.clip import DEVIATION, MEAN
from steps.judge.scoring.inception import Inception
from steps.judge.scoring.narrow import layers
from steps.prepare.rehearsal.compress import replacing, write_manifest
from steps.prepare.rehearsal.recipes import THREADS, advance, described, output_of, trapezoid
from steps.prepare.rehearsal.shapes import tokenizer, world
from steps.prepare.rehearsal.shapes.train import pixels

LARGEST_SCALE = 30.0
"""The most of CLIP's logits: a higher one fits single pictures."""

LAST_BLOCK = "Mixed_7c"
FIRST_PARTS = ("branch3x3_1", "branch3x3dbl_1", "branch3x3dbl_2")
"""The last block's convolutions whose outputs aren't features."""

REPORT_STEPS = 25


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the code and the versions it runs on.

    `scale`: a factor of Inception's features, by which distances of pictures are of the order that
    FID has for photographs. `drawn`: pictures that the statistics are of.
    """

    seed: int = 11
    clip_steps: int = 600
    clip_batch: int = 64
    clip_rate: float = 1.5e-3
    clip_noise: float = 0.03
    inception_width: int = 4
    inception_steps: int = 80
    inception_batch: int = 12
    inception_rate: float = 3e-3
    scale: float = 10.0
    drawn: int = 1_536


BASE = Recipe()


def train_clip(recipe: Recipe, scenes: Sequence[world.Scene], directory: Path) -> None:
    """Leaves the files that steps/judge/scoring/clip.py reads."""
    pictures = pixels(scenes, recipe.seed)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save(Path(scratch) / "tokenizer", tokenizer.END)
        words = CLIPTokenizer.from_pretrained(Path(scratch) / "tokenizer")
    captions = [scene.caption for scene in scenes]
    ids = torch.tensor(words(captions, padding="max_length").input_ids)
    torch.manual_seed(recipe.seed)
    model = CLIPModel(_clip(words)).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.clip_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    chance = torch.Generator().manual_seed(recipe.seed)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    for step in range(recipe.clip_steps):
        chosen = torch.randint(len(pictures), (recipe.clip_batch,), generator=chance)
        shown = pictures[chosen].float() / 255
        shown = shown + recipe.clip_noise * torch.randn(shown.shape, generator=chance)
        logits = model(
            input_ids=ids[chosen], pixel_values=(shown - mean) / deviation
        ).logits_per_image
        right = torch.arange(recipe.clip_batch)
        loss = functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)
        advance(optimizer, loss, _rate(recipe.clip_rate, step, recipe.clip_steps))
        with torch.no_grad():
            model.logit_scale.clamp_(max=numpy.log(LARGEST_SCALE))
        if step % REPORT_STEPS == 0:
            found = (logits.argmax(1) == right).float().mean().item()
            _report("CLIP", step, f"loss {loss.item():.4f}, {100 * found:.0f} % right")
    directory.mkdir(parents=True)
    model.config.save_pretrained(directory)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    words.backend_tokenizer.save(str(directory / "tokenizer.json"))


def _clip(words: CLIPTokenizer) -> CLIPConfig:
    common = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_attention_heads": 3,
        "hidden_act": "quick_gelu",
    }
    text = {
        **common,
        "num_hidden_layers": 2,
        "vocab_size": len(words),
        "max_position_embeddings": tokenizer.LENGTH,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vision = {**common, "num_hidden_layers": 3, "image_size": world.SIDE_PIXELS, "patch_size": 8}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)


class _Calibrating(Inception):
    """Sets every layer's running mean and variance to what it sees, so that no feature is idle."""

    def _conv(self, x: Tensor, name: str, stride: int = 1, *, padded: bool = True) -> Tensor:
        kernel = self._weights[f"{name}.conv.weight"]
        padding = (kernel.shape[2] // 2, kernel.shape[3] // 2) if padded else (0, 0)
        seen = functional.conv2d(x, kernel, stride=stride, padding=padding)
        for part, value in (
            ("running_mean", seen.mean((0, 2, 3))),
            ("running_var", seen.var((0, 2, 3))),
        ):
            self._weights[f"{name}.bn.{part}"].copy_(value)
        return super()._conv(x, name, stride, padded=padded)


def train_inception(recipe: Recipe, scenes: Sequence[world.Scene], path: Path) -> None:
    """Learns to name the words of a caption from its drawing, and keeps the features."""
    pictures = pixels(scenes, recipe.seed + 1)
    chance = torch.Generator().manual_seed(recipe.seed)
    weights = layers.inception(
        recipe.inception_width, lambda _, *shape: torch.randn(*shape, generator=chance)
    )
    _Calibrating(weights).features(pictures[:64].float() / 255)
    kinds = [sorted(set(words)) for words in zip(*scenes, strict=True)]
    wanted = torch.tensor(
        [[kind.index(word) for kind, word in zip(kinds, scene, strict=True)] for scene in scenes]
    )
    torch.manual_seed(recipe.seed)
    heads = nn.ModuleList(nn.Linear(6 * recipe.inception_width, len(kind)) for kind in kinds)
    learned = [value.requires_grad_() for name, value in weights.items() if "running" not in name]
    optimizer = torch.optim.AdamW(
        [*learned, *heads.parameters()], lr=recipe.inception_rate, weight_decay=1e-3
    )
    network = Inception(weights)
    for step in range(recipe.inception_steps):
        chosen = torch.randint(len(pictures), (recipe.inception_batch,), generator=chance)
        features = network._features(pictures[chosen].float() / 255)
        named = [
            functional.cross_entropy(h(features), y)
            for h, y in zip(heads, wanted[chosen].T, strict=True)
        ]
        loss = torch.stack(named).mean()
        advance(optimizer, loss, _rate(recipe.inception_rate, step, recipe.inception_steps))
        if step % REPORT_STEPS == 0:
            words = ", ".join(f"{one.item():.2f}" for one in named)
            _report("Inception", step, f"loss {loss.item():.4f} ({words})")
    torch.save(_scaled(weights, recipe.scale), path)


def _scaled(weights: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """In fp16, with all features times `factor`: their layers' outputs are linear in these."""
    found = {}
    for name, value in weights.items():
        block, _, rest = name.partition(".")
        layer, _, kind = rest.partition(".")
        ends = block == LAST_BLOCK and layer not in FIRST_PARTS
        times = factor if ends and kind in ("bn.weight", "bn.bias") else 1.0
        found[name] = (value.detach() * times).half()
    return found


def write_statistics(recipe: Recipe, inception: Path, path: Path) -> None:
    """Mean and covariance of the features of drawings of evaluated captions."""
    network = Inception.read(inception)
    pictures = pixels(world.evaluation()[: recipe.drawn], recipe.seed + 2)
    found = [network.features(part.float() / 255) for part in pictures.split(32)]
    features = torch.cat(found).double().numpy()
    numpy.savez(path, mu=features.mean(axis=0), sigma=numpy.cov(features, rowvar=False))


def _rate(peak: float, step: int, steps: int) -> float:
    return peak * trapezoid(step, steps, warmup_share=0.03, decay_share=0.5)


def _report(stage: str, step: int, words: str) -> None:
    print(f"{stage} {step}: {words}; {time.process_time():.0f} s of processor time", flush=True)


def main() -> None:
    output = output_of("steps.judge.scoring.narrow.train")
    torch.set_num_threads(THREADS)
    with replacing(output.resolve()) as directory:
        train_clip(BASE, world.training(), directory / "clip")
        train_inception(BASE, world.training(), directory / "inception.pth")
        write_statistics(BASE, directory / "inception.pth", directory / "statistics.npz")
        write_manifest(directory, described(asdict(BASE), transformers, numpy))


if __name__ == "__main__":
    main()
