"""The recipe of the small pipeline: `python -m steps.prepare.rehearsal.shapes.train --output DIR`.

First the autoencoder on drawings, then UNet and text encoders together on its latents.
Deterministic on one machine and one set of versions: every draw comes from a seeded generator, and
one thread computes.
"""

import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from steps.prepare.pipeline import PIPELINE, SCHEDULER, TOKENIZERS
from steps.prepare.rehearsal.compress import replacing, write_manifest
from steps.prepare.rehearsal.recipes import THREADS, advance, described, output_of, trapezoid
from steps.prepare.rehearsal.shapes import tokenizer, world
from steps.prepare.samples import LATENTS

PADDINGS = (tokenizer.END, tokenizer.FIRST)
"""What Stable Diffusion XL's two tokenizers pad with."""

LATENT_SIDE, LATENT_CHANNELS = 4, 4
ENCODER_WIDTH = 32
REPORT_STEPS = 100
SNAPSHOT_STEPS = 500


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the code and the versions it runs on.

    `guidance`: the scale that the UNet is trained for and has to be asked with: the loss is of the
    guided prediction, so that another scale draws other pictures. `unguided`: the weight of the
    loss of the negative prompt's own prediction beside it. `latent_noise`: what the decoder learns
    to bear, in the encoder's units.
    """

    seed: int = 3
    drawings_of_each: int = 2
    autoencoder_steps: int = 1_600
    autoencoder_batch: int = 16
    autoencoder_rate: float = 2e-3
    latent_noise: float = 0.05
    latent_penalty: float = 1e-3
    unet_steps: int = 5_000
    unet_batch: int = 32
    unet_rate: float = 1.5e-3
    guidance: float = 8.0
    unguided: float = 0.25
    averaged: float = 0.995
    warmup_share: float = 0.03
    decay_share: float = 0.5

    def rate(self, peak: float, step: int, steps: int) -> float:
        """The peak rate, warmed up before and fallen to zero at the last step."""
        return peak * trapezoid(step, steps, self.warmup_share, self.decay_share)


BASE = Recipe()


def untrained(recipe: Recipe, tokenizers: Path) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL's classes at 1.3 million parameters. `tokenizers`: where both are put.

    The UNet predicts velocities, which a caption can be seen in from the first step on; noise would
    take many times as long to learn. Scheduler and betas are Stable Diffusion XL's.
    """
    torch.manual_seed(recipe.seed)
    for name, padding in zip(TOKENIZERS, PADDINGS, strict=True):
        tokenizer.save(tokenizers / name, padding)
    one, two = (CLIPTokenizer.from_pretrained(tokenizers / name) for name in TOKENIZERS)
    return StableDiffusionXLPipeline(
        vae=_autoencoder(),
        text_encoder=CLIPTextModel(_encoder("quick_gelu", one)),
        text_encoder_2=CLIPTextModelWithProjection(_encoder("gelu", two)),
        tokenizer=one,
        tokenizer_2=two,
        unet=_unet(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
            prediction_type="v_prediction",
        ),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _encoder(activation: str, words: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=ENCODER_WIDTH,
        intermediate_size=2 * ENCODER_WIDTH,
        projection_dim=ENCODER_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.LENGTH,
        hidden_act=activation,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        norm_num_groups=8,
        cross_attention_dim=2 * ENCODER_WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=ENCODER_WIDTH + 6 * 8,
    )


def _autoencoder() -> AutoencoderKL:
    widths = (8, 16, 32, 32)  # a latent has an eighth of the side, as in Stable Diffusion XL
    return AutoencoderKL(
        latent_channels=LATENT_CHANNELS,
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=world.SIDE_PIXELS,
        scaling_factor=1.0,
        force_upcast=True,
    )


# ---- training ------------------------------------------------------------------------------------


def train(recipe: Recipe, output: Path) -> None:
    """Trains all of it and leaves it in `output`; `output`.snapshot has it while that goes on."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        pipeline = untrained(recipe, Path(scratch))
    scenes = world.training() * recipe.drawings_of_each
    pictures = pixels(scenes, recipe.seed)
    _train_autoencoder(pipeline.vae, pictures, recipe)
    latents = _latents(pipeline.vae, pictures)
    _Diffusion(pipeline, latents, [scene.caption for scene in scenes], recipe).train(output)
    save(pipeline, output, recipe)


def pixels(scenes: Sequence[world.Scene], seed: int) -> Tensor:
    """(n, 3, side, side) of whole numbers, one drawing of each."""
    rows = [numpy.asarray(picture) for picture in world.drawings(scenes, seed)]
    return torch.from_numpy(numpy.stack(rows)).permute(0, 3, 1, 2).contiguous()


def _train_autoencoder(vae: AutoencoderKL, pictures: Tensor, recipe: Recipe) -> None:
    chance = torch.Generator().manual_seed(recipe.seed)
    optimizer = _adam(vae.parameters(), recipe.autoencoder_rate)
    vae.train()
    for step in range(recipe.autoencoder_steps):
        chosen = torch.randint(len(pictures), (recipe.autoencoder_batch,), generator=chance)
        wanted = pictures[chosen].float() / 127.5 - 1
        means = vae.encode(wanted).latent_dist.mean
        noise = torch.randn(means.shape, generator=chance)
        apart = vae.decode(means + recipe.latent_noise * noise).sample - wanted
        loss = apart.abs().mean() + apart.pow(2).mean()
        rate = recipe.rate(recipe.autoencoder_rate, step, recipe.autoencoder_steps)
        advance(optimizer, loss + recipe.latent_penalty * means.pow(2).mean(), rate)
        if step % REPORT_STEPS == 0:
            _report("autoencoder", step, {"L1": apart.abs().mean().item()})
    vae.eval()


def _latents(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """What pictures are encoded as, with a deviation of 1; the configuration gets the scale."""
    with torch.inference_mode():
        parts = [
            vae.encode(part.float() / 127.5 - 1).latent_dist.mean for part in pictures.split(100)
        ]
    found = torch.cat(parts).clone()
    scale = 1 / found.std().item()
    vae.register_to_config(scaling_factor=scale)
    return found * scale


class _Diffusion:
    """UNet and both text encoders, trained together; a moving average of them is what is kept."""

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        latents: Tensor,
        captions: list[str],
        recipe: Recipe,
    ) -> None:
        self._pipeline, self._latents, self._recipe = pipeline, latents, recipe
        self._models = (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2)
        self._weights = [weight for model in self._models for weight in model.parameters()]
        self._average = [weight.detach().clone() for weight in self._weights]
        words = (pipeline.tokenizer, pipeline.tokenizer_2)
        self._captions = [_ids(one, captions) for one in words]
        self._negative = [_ids(one, [tokenizer.NEGATIVE]) for one in words]
        side = float(world.SIDE_PIXELS)
        self._sizes = torch.tensor([[side, side, 0, 0, side, side]])
        self._chance = torch.Generator().manual_seed(recipe.seed)

    def train(self, output: Path) -> None:
        recipe = self._recipe
        optimizer = _adam(self._weights, recipe.unet_rate)
        for model in self._models:
            model.train()
        for step in range(recipe.unet_steps):
            guided, unguided = self._losses()
            loss = guided + recipe.unguided * unguided
            advance(optimizer, loss, recipe.rate(recipe.unet_rate, step, recipe.unet_steps))
            self._follow(min(recipe.averaged, (1 + step) / (10 + step)))
            if step % REPORT_STEPS == 0:
                _report("unet", step, {"guided": guided.item(), "unguided": unguided.item()})
            if step % SNAPSHOT_STEPS == SNAPSHOT_STEPS - 1:
                self._swap()
                save(self._pipeline, output.with_suffix(".snapshot"), recipe)
                self._swap()
        self._swap()
        for model in self._models:
            model.eval()

    def _losses(self) -> tuple[Tensor, Tensor]:
        """The loss of the guided prediction, and that of the negative prompt's alone."""
        recipe, count = self._recipe, self._recipe.unet_batch
        chosen = torch.randint(len(self._latents), (count,), generator=self._chance)
        clean = self._latents[chosen]
        noise = torch.randn(clean.shape, generator=self._chance)
        times = torch.randint(1000, (count,), generator=self._chance)
        kept = self._pipeline.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        wanted = kept.sqrt() * noise - (1 - kept).sqrt() * clean
        ids = [
            torch.cat([negative.expand(count, -1), captions[chosen]])
            for negative, captions in zip(self._negative, self._captions, strict=True)
        ]
        negative, positive = self._predicted(noisy.repeat(2, 1, 1, 1), times.repeat(2), ids)
        guided = negative + recipe.guidance * (positive - negative)
        return functional.mse_loss(guided, wanted), functional.mse_loss(negative, wanted)

    def _predicted(self, noisy: Tensor, times: Tensor, ids: list[Tensor]) -> tuple[Tensor, Tensor]:
        unet, *encoders = self._models
        found = [
            encoder(one, output_hidden_states=True)
            for encoder, one in zip(encoders, ids, strict=True)
        ]
        added = {"text_embeds": found[1][0], "time_ids": self._sizes.expand(len(noisy), -1)}
        hidden = torch.cat([one.hidden_states[-2] for one in found], -1)
        halves = unet(
            noisy, times, encoder_hidden_states=hidden, added_cond_kwargs=added
        ).sample.chunk(2)
        return halves[0], halves[1]

    def _follow(self, decay: float) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(self._average, [one.detach() for one in self._weights], 1 - decay)

    def _swap(self) -> None:
        """Exchanges the weights and their average."""
        with torch.no_grad():
            for weight, average in zip(self._weights, self._average, strict=True):
                kept = weight.clone()
                weight.copy_(average)
                average.copy_(kept)


def _ids(words: Any, captions: list[str]) -> Tensor:
    found = words(captions, padding="max_length", max_length=tokenizer.LENGTH, truncation=True)
    return torch.tensor(found.input_ids)


def _adam(weights: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)


def _report(stage: str, step: int, values: dict[str, float]) -> None:
    words = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
    print(f"{stage} {step}: {words}; {time.process_time():.0f} s of processor time", flush=True)


# ---- files ---------------------------------------------------------------------------------------


def save(pipeline: StableDiffusionXLPipeline, directory: Path, recipe: Recipe) -> None:
    """Weights in fp16, in MLCommons' layout, with the fixed noise and a manifest."""
    chance = torch.Generator().manual_seed(recipe.seed)
    noise = torch.randn(1, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE, generator=chance)
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
    with replacing(directory) as temporary:
        for name in parts:
            _save_rounded(getattr(pipeline, name), temporary / PIPELINE / name)
        for name, padding in zip(TOKENIZERS, PADDINGS, strict=True):
            tokenizer.save(temporary / PIPELINE / name, padding)
        pipeline.scheduler.save_pretrained(temporary / PIPELINE / "scheduler")
        pipeline.scheduler.save_pretrained(temporary / SCHEDULER / "scheduler")
        pipeline.save_config(temporary / PIPELINE)
        torch.save(noise, temporary / LATENTS)
        made = described(asdict(recipe), diffusers, transformers, numpy)
        write_manifest(temporary, made)


def _save_rounded(model: Any, directory: Path) -> None:
    """In fp16, under the names that either library gives its files; the model stays as it is."""
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    language = isinstance(model, transformers.PreTrainedModel)
    name = "model.safetensors" if language else "diffusion_pytorch_model.safetensors"
    directory.mkdir(parents=True)
    keep = model.config.save_pretrained if language else model.save_config
    keep(directory)
    save_file(weights, directory / name, metadata={"format": "pt"})


def main() -> None:
    output = output_of("steps.prepare.rehearsal.shapes.train").resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    train(BASE, output)


if __name__ == "__main__":
    main()
