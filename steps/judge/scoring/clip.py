"""CLIP: how well a picture fits its caption, by ViT-B/32 from Hugging Face's files."""

import html
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import CLIPModel
from transformers.utils import logging

from steps.base.errors import UserError

WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
FILES = ("config.json", WEIGHTS, TOKENIZER)
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Mean and deviation of CLIP's training pixels, from 0 to 1, by channel (OpenAI's preprocessing).
"""


class Clip:
    """The model with its tokenizer, for calls from several threads."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._model = model
        self._side = int(model.config.vision_config.image_size)
        self._tokenizer = tokenizer
        self._tokenizer.enable_truncation(int(model.config.text_config.max_position_embeddings))
        self._tokenizer.no_padding()
        self._mean, self._deviation = (
            torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, DEVIATION)
        )

    @classmethod
    def read(cls, directory: Path) -> "Clip":
        """`directory` holds `FILES`; raises UserError for one that doesn't hold CLIP."""
        for name in FILES:
            if not (directory / name).is_file():
                raise UserError(
                    f"{directory} has no {name}; name a download of openai/clip-vit-base-patch32"
                )
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            model, report = CLIPModel.from_pretrained(
                directory, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
            clip = cls(model.eval(), Tokenizer.from_file(str(directory / TOKENIZER)))
            clip.score("a port", Image.new("RGB", (8, 8)))
        except Exception as error:  # whatever three libraries find in a stranger's files
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"{directory} doesn't hold CLIP ({type(error).__name__}: {reason}); name a "
                "download of openai/clip-vit-base-patch32"
            ) from error
        # The library makes up what is missing.
        if absent := sorted(report["missing_keys"]):
            raise UserError(
                f"{directory / WEIGHTS} has no {absent[0]} ({len(absent)} tensors are missing); "
                "download it again"
            )
        clip._require_own_words(directory)
        return clip

    def _require_own_words(self, directory: Path) -> None:
        """Raises UserError for a tokenizer of another model, at whose captions it would fail."""
        largest = max(self._tokenizer.get_vocab().values())
        known = int(self._model.config.text_config.vocab_size)
        if largest >= known:
            raise UserError(
                f"{directory / TOKENIZER} has ids up to {largest}, and the model beside it knows "
                f"{known} words: they are of two models; name a download of "
                "openai/clip-vit-base-patch32"
            )

    def score(self, caption: str, picture: Image.Image) -> float:
        """100 x the cosine between a square picture and its caption."""
        shrunk = picture.resize((self._side, self._side), Image.Resampling.BICUBIC)
        pixels = (pixels_of(shrunk) - self._mean) / self._deviation
        # Captions of COCO have entities of HTML in them here and there.
        plain = html.unescape(html.unescape(caption)).strip()
        with torch.inference_mode():
            found = self._model(
                input_ids=torch.tensor([self._tokenizer.encode(plain).ids]),
                pixel_values=pixels.unsqueeze(0),
            )
        return 100 * float(found.image_embeds[0] @ found.text_embeds[0])


def pixels_of(picture: Image.Image) -> torch.Tensor:
    """(3, height, width), from 0 to 1."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.reshape(picture.height, picture.width, 3).permute(2, 0, 1).float() / 255
