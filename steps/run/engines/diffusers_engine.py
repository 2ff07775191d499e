"""Stable Diffusion XL by Hugging Face's diffusers: token ids of captions in, bytes of pictures out.

What MLCommons' reference does (text_to_image, v5.1.1): Euler's scheduler, the same noise for every
picture, one negative prompt, both prompts encoded again for each batch. Batches always have one
size: the last caption fills what is missing, and those pictures are thrown away. So shapes never
change, and a picture doesn't depend on its company.
"""

import os
import time
from array import array
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steps.base import threads
from steps.base.errors import UserError
from steps.config.engine import DiffusersEngine as DiffusersConfig
from steps.config.generation import ImageGeneration
from steps.config.resolved import Resolved
from steps.prepare import pipeline as layout
from steps.run.engines.engine import Answer, Events, Request, Start

NAP_S = 0.002
"""Between looks for more samples while a batch isn't full."""

Waiting = tuple[int, list[int], float]
"""A request's number, its prompt, and when it came."""


class DiffusersEngine:
    """One pipeline on one device."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._pipeline: Any = None

    def start(self, start: Start) -> None:
        config, generation = start.config, start.generation
        if not isinstance(config, DiffusersConfig) or not isinstance(generation, ImageGeneration):
            raise UserError(f"diffusers makes pictures, and was given settings of {config.kind}")
        if start.noise is None:
            raise UserError("the dataset has no latents, which every picture starts from")
        threads.take(config.threads)
        os.environ.update(config.environment)
        try:
            threads.told(config.threads)
            import diffusers
            import torch
            import transformers
        except ImportError as error:
            raise UserError(
                f"diffusers can't be imported ({error}); see docs/how-to/trouble.md"
            ) from error
        self._torch, self._release = torch, diffusers.__version__
        for library in (diffusers, transformers):  # their bars would fill the log
            library.utils.logging.disable_progress_bar()
        self._arguments, self._generation = config.arguments, generation
        # Offline's samples are all there: waiting for more gains nothing.
        self._patience_s = config.arguments.batch_timeout_s if start.first_tokens else 0.0
        self._dtype = getattr(torch, config.arguments.dtype)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        self._pipeline = self._loaded(start.weights)
        self._latents = self._noise(start.noise)
        words = (self._pipeline.tokenizer, self._pipeline.tokenizer_2)
        self._negative = [self._ids(one, generation.negative_prompt) for one in words]

    def submit(self, requests: Sequence[Request]) -> None:
        now = time.perf_counter()
        wanted = sum(ids.shape[1] for ids in self._negative)
        for number, prompt, _ in requests:
            if len(prompt) != wanted:
                raise UserError(
                    f"a caption of {len(prompt)} token ids was asked for, and the two encoders "
                    f"take {wanted}; make the dataset again with this model's tokenizers"
                )
            self._waiting.append((number, list(prompt), now))

    def step(self) -> Events:
        if not self._due():
            time.sleep(NAP_S)
            return Events(idle=True)
        size = min(self._arguments.batch_size, len(self._waiting))
        taken = [self._waiting.popleft() for _ in range(size)]
        rows = [prompt for _, prompt, _ in taken]
        pictures = self._pictures(rows + rows[-1:] * (self._arguments.batch_size - size))
        return Events(completed=self._answers([number for number, *_ in taken], pictures))

    def threads(self) -> int:
        return threads.computing()

    def resolved(self) -> Resolved:
        unet = self._pipeline.unet
        kinds = sorted({type(one).__name__ for one in unet.attn_processors.values()})
        found = {str(weight.dtype).removeprefix("torch.") for weight in unet.parameters()}
        asked = self._arguments.dtype
        differences = (
            () if found == {asked} else (f"dtype is {', '.join(sorted(found))}, not {asked}",)
        )
        scheduler = self._pipeline.scheduler
        kept = ("prediction_type", "timestep_spacing", "steps_offset", "beta_schedule")
        chosen = {name: scheduler.config.get(name) for name in kept}
        return Resolved(
            attention=", ".join(kinds),
            differences=differences,
            configuration={"scheduler": {"class": type(scheduler).__name__, **chosen}},
        )

    def identity(self) -> dict[str, str]:
        return {
            "name": "diffusers",
            "version": self._release,
            "torch": str(self._torch.__version__),
            "device": self._arguments.device,
            "dtype": self._arguments.dtype,
        }

    def device(self) -> str:
        if self._arguments.device == "cpu":
            return "cpu"
        return str(self._torch.cuda.get_device_name())

    # ---- start --------------------------------------------------------------------------------

    def _loaded(self, weights: Path) -> Any:
        from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

        home = layout.home(weights)
        try:
            scheduler = EulerDiscreteScheduler.from_pretrained(
                layout.scheduling(home), local_files_only=True
            )
            pipeline = StableDiffusionXLPipeline.from_pretrained(
                home,
                scheduler=scheduler,
                dtype=self._dtype,
                variant=layout.variant(home),
                use_safetensors=True,
                add_watermarker=False,
                local_files_only=True,
            )
        except Exception as error:  # diffusers and transformers raise many kinds
            raise UserError(
                f"diffusers can't load {home}: {_said(error)}; delete {weights} and re-run"
            ) from error
        _require_whole(pipeline, home)
        device = self._arguments.device
        try:
            pipeline.to(device)
        except Exception as error:  # PyTorch does, too, of drivers and memory
            raise UserError(
                f"PyTorch can't put the pipeline on device {device}: {_said(error)}; see whether "
                "its driver is loaded, and what else has its memory"
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        if self._arguments.decode_singly:
            pipeline.vae.enable_slicing()
        if self._arguments.channels_last:
            pipeline.unet.to(memory_format=self._torch.channels_last)
            pipeline.vae.to(memory_format=self._torch.channels_last)
        if self._arguments.compile:
            pipeline.unet = self._torch.compile(pipeline.unet, dynamic=False)
            pipeline.vae.decode = self._torch.compile(pipeline.vae.decode, dynamic=False)
        return pipeline

    def _noise(self, path: Path) -> Any:
        """(1, channels, side, side), as this pipeline takes it for the benchmark's size."""
        try:
            found = self._torch.load(path, map_location="cpu", weights_only=True)
            shape = tuple(found.shape)
        except Exception as error:  # whatever torch and pickle find in a damaged file
            raise UserError(
                f"{path} doesn't hold latents ({type(error).__name__}); make the dataset again"
            ) from error
        side = self._generation.size // self._pipeline.vae_scale_factor
        wanted = (1, self._pipeline.unet.config.in_channels, side, side)
        if shape != wanted:
            raise UserError(
                f"{path} has latents of {shape}, and pictures of {self._generation.size} pixels "
                f"start from {wanted}; give the latents of this model and size"
            )
        if not self._torch.isfinite(found).all():
            raise UserError(f"{path} has latents that aren't finite; make the dataset again")
        return found.to(self._arguments.device, self._dtype)

    def _ids(self, words: Any, text: str) -> Any:
        found = words(
            text, padding="max_length", max_length=words.model_max_length, truncation=True
        )
        return self._torch.tensor([found.input_ids], device=self._arguments.device)

    # ---- pictures -----------------------------------------------------------------------------

    def _due(self) -> bool:
        """Whether a batch is full, or its oldest sample has waited long enough."""
        if not self._waiting:
            return False
        if len(self._waiting) >= self._arguments.batch_size:
            return True
        return time.perf_counter() - self._waiting[0][2] >= self._patience_s

    def _pictures(self, rows: list[list[int]]) -> tuple[Any, list[bool]]:
        """(n, side, side, 3) bytes on the CPU, and for each picture whether it is one."""
        torch, count = self._torch, len(rows)
        ids = torch.tensor(rows, device=self._arguments.device)
        split = self._negative[0].shape[1]
        with torch.inference_mode():
            hidden, pooled = self._encoded([ids[:, :split], ids[:, split:]])
            against, against_pooled = self._encoded(
                [one.repeat(count, 1) for one in self._negative]
            )
            found = self._pipeline(
                prompt_embeds=hidden,
                pooled_prompt_embeds=pooled,
                negative_prompt_embeds=against,
                negative_pooled_prompt_embeds=against_pooled,
                guidance_scale=self._generation.guidance_scale,
                num_inference_steps=self._generation.steps,
                latents=self._latents.repeat(count, 1, 1, 1),
                height=self._generation.size,
                width=self._generation.size,
                output_type="pt",
            ).images
            whole = torch.isfinite(found).flatten(1).all(1).tolist()
            scaled = (found.permute(0, 2, 3, 1).float() * 255).round().nan_to_num()
            return scaled.to(torch.uint8).contiguous().cpu().numpy(), whole

    def _encoded(self, ids: list[Any]) -> tuple[Any, Any]:
        """What both encoders make of a batch: hidden states side by side, and the second's whole.

        Nothing is kept for a later batch: the rules count encoding, and TEST04 looks for caches.
        """
        encoders = (self._pipeline.text_encoder, self._pipeline.text_encoder_2)
        found = [
            encoder(one, output_hidden_states=True)
            for encoder, one in zip(encoders, ids, strict=True)
        ]
        return self._torch.cat([one.hidden_states[-2] for one in found], -1), found[1][0]

    def _answers(self, numbers: list[int], made: tuple[Any, list[bool]]) -> list[Answer]:
        pictures, whole = made
        if not all(whole[: len(numbers)]):
            raise UserError(
                f"{whole[: len(numbers)].count(False)} of {len(numbers)} pictures of a batch have "
                f"values that aren't numbers in {self._arguments.dtype}; the run is void, try "
                "another dtype"
            )
        return [(number, array("i", pictures[at].tobytes())) for at, number in enumerate(numbers)]


def _require_whole(pipeline: Any, home: Path) -> None:
    """Raises UserError for a network that lacks tensors: transformers draws those at random."""
    from safetensors import safe_open

    for name in layout.NETWORKS:
        there = 0
        for path in layout.files(home, name):
            with safe_open(path, "pt") as stored:
                there += len(stored.keys())
        wanted = len(getattr(pipeline, name).state_dict())
        if there < wanted:
            raise UserError(
                f"{home / name} has {there} tensors, and its network {wanted}: what is missing "
                "would be random; get the whole checkpoint"
            )


def _said(error: Exception) -> str:
    """The first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
