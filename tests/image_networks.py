"""Narrow networks, pictures and statistics for the scores of images: the same on every machine.

`python -m tests.image_networks DIRECTORY` writes them; that needs PyTorch. pytest can be given this
file, too: it finds no tests here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    import torch

WIDTH = 2
"""Channels of each convolution of the narrow Inception-v3."""

FEATURES = 6 * WIDTH
PICTURES = 14
SIDE_PIXELS = 1024
WORDS = {"a": 320, "boat": 4440, "cat": 2368, "city": 1305, "dog": 1929, "red": 736, "ships": 3262}
"""Tokens of CLIP's vocabulary."""

BEGIN, END = 49406, 49407
CAPTIONS = [
    f"a {one} {other}" for one in ("red", "city") for other in list(WORDS)[1:] if one != other
] + ["a", "a cat a dog", "ships", "red"]


SEED = 700
"""One with which no feature is always 0."""


def noise(number: int, *shape: int) -> torch.Tensor:
    """Normal numbers that are the same for every NumPy; `number` tells tensors apart."""
    import torch

    values = numpy.random.RandomState(SEED + number).standard_normal(shape)
    return torch.from_numpy(values.astype(numpy.float32))


def inception() -> dict[str, torch.Tensor]:
    """Weights by torchvision's names."""
    from steps.judge.scoring.narrow import layers

    return layers.inception(WIDTH, noise)


TEXT = {
    **{"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "vocab_size": 49408, "max_position_embeddings": 77},
    **{"hidden_act": "quick_gelu", "bos_token_id": BEGIN, "eos_token_id": END},
}
VISION = {
    **{"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "image_size": 32, "patch_size": 8, "hidden_act": "quick_gelu"},
}
CLIP = {
    **{"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": 8},
    **{"text_config": TEXT, "vision_config": VISION},
}


def clip() -> dict[str, torch.Tensor]:
    """Weights by the names of Hugging Face's files."""
    import torch

    found: dict[str, torch.Tensor] = {"logit_scale": torch.tensor(2.0)}

    def tensor(name: str, *shape: int, base: float = 0.0) -> None:
        found[name] = base + 0.3 * noise(len(found), *shape)

    def norm(name: str) -> None:
        tensor(f"{name}.weight", 16, base=1)
        tensor(f"{name}.bias", 16)

    for model in ("text_model", "vision_model"):
        layer = f"{model}.encoder.layers.0"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensor(f"{layer}.self_attn.{name}.weight", 16, 16)
            tensor(f"{layer}.self_attn.{name}.bias", 16)
        for name, wide, narrow in (("fc1", 64, 16), ("fc2", 16, 64)):
            tensor(f"{layer}.mlp.{name}.weight", wide, narrow)
            tensor(f"{layer}.mlp.{name}.bias", wide)
        norm(f"{layer}.layer_norm1")
        norm(f"{layer}.layer_norm2")
    tensor("text_model.embeddings.token_embedding.weight", 49408, 16)
    tensor("text_model.embeddings.position_embedding.weight", 77, 16)
    tensor("vision_model.embeddings.class_embedding", 16)
    tensor("vision_model.embeddings.patch_embedding.weight", 16, 3, 8, 8)
    tensor("vision_model.embeddings.position_embedding.weight", 17, 16)
    # Hugging Face's own spelling.
    for name in ("text_model.final_layer_norm", "vision_model.pre_layrnorm"):
        norm(name)
    norm("vision_model.post_layernorm")
    tensor("text_projection.weight", 8, 16)
    tensor("visual_projection.weight", 8, 16)
    return found


def write_clip(directory: Path) -> None:
    """The three files that a download has."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(CLIP), encoding="utf-8")
    save_file(clip(), directory / "model.safetensors", metadata={"format": "pt"})
    special = {"<|startoftext|>": BEGIN, "<|endoftext|>": END}
    tokenizer = Tokenizer(WordLevel({**WORDS, **special}, unk_token="a"))
    tokenizer.pre_tokenizer = Whitespace()
    single = "<|startoftext|> $A <|endoftext|>"
    tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=[*special.items()])
    tokenizer.save(str(directory / "tokenizer.json"))


def picture(number: int) -> bytes:
    """Waves of a colour."""
    x, y, colour = (numpy.arange(size) for size in (SIDE_PIXELS, SIDE_PIXELS, 3))
    phase = x[None, :, None] * (0.002 + 0.003 * number) + y[:, None, None] * (0.04 - 0.002 * number)
    values = 127.5 + 127.5 * numpy.sin(phase + colour[None, None, :] * (1 + 0.2 * number))
    return values.astype(numpy.uint8).tobytes()


def write(directory: Path) -> None:
    """captions.tsv, statistics.npz, inception.pth, clip/ and log.json, in an order of its own;
    broken.pth is an inception.pth of no numbers."""
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    rows = [f"{n}\t{n}\t{caption}\n" for n, caption in enumerate(CAPTIONS)]
    text = "id\timage_id\tcaption\n" + "".join(rows)
    (directory / "captions.tsv").write_text(text, encoding="utf-8")
    spread = noise(5, FEATURES, FEATURES).double().numpy()
    covariance = 0.01 * (spread @ spread.T + numpy.eye(FEATURES))
    mean = 0.5 + 0.2 * noise(6, FEATURES).double().numpy()
    numpy.savez(directory / "statistics.npz", mu=mean, sigma=covariance)
    torch.save(inception(), directory / "inception.pth")
    broken = {name: value.fill_(float("nan")) for name, value in inception().items()}
    torch.save(broken, directory / "broken.pth")
    write_clip(directory / "clip")
    entries = [
        f'{{ "seq_id" : {at}, "qsl_idx" : {n}, "data" : "{picture(n).hex().upper()}" }}'
        for at, n in enumerate(reversed(range(PICTURES)))
    ]
    (directory / "log.json").write_text("[\n" + ",\n".join(entries) + "\n]\n", encoding="utf-8")


assert len(CAPTIONS) == PICTURES

if __name__ == "__main__":
    write(Path(sys.argv[1]))
