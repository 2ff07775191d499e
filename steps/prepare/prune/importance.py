"""How much each decoder layer does, measured on calibration data, and the block that does least."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from steps.base.errors import UserError
from steps.prepare.checkpoint.config_forms import dtype_keyword, refuse_misread
from steps.prepare.prune.block import Block

Measure = Literal["ffn_output", "angular_distance"]


@dataclass(frozen=True)
class Importance:
    """Measured over `samples` prompts of a model of n layers.

    `ffn_output`: n sums of the absolute outputs of a layer's feed-forward network, over all tokens
    (AMD's supplemental discussion of MLPerf Inference v5.1). `angular_distance`: (n + 1, n + 1);
    entry [i, j] is the mean of arccos(cosine) / pi between the last token's hidden state before
    layer i and before layer j, so [i, i + k] is how much the k layers from i on change it, 0 to 1
    (Gromov et al., "The Unreasonable Ineffectiveness of the Deeper Layers", 2024, equation 7).
    """

    ffn_output: NDArray[np.float64]
    angular_distance: NDArray[np.float64]
    samples: int

    def of_blocks(self, by: Measure, count: int) -> NDArray[np.float64]:
        """Importance of every block of `count` layers, by its first layer."""
        layers = len(self.ffn_output)
        if not 0 < count < layers:
            raise UserError(f"can't drop {count} of {layers} layers: drop at least one, keep one")
        if by == "ffn_output":
            return np.convolve(self.ffn_output, np.ones(count), "valid")
        return np.diagonal(self.angular_distance, count).copy()

    def least(self, by: Measure, count: int) -> Block:
        """The block of `count` layers that does least; the first if several are equal."""
        first = int(self.of_blocks(by, count).argmin())
        return Block(first, first + count - 1)


def angular_distances(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """arccos(cosine) / pi between all rows of (m, hidden): (m, m), 0 on the diagonal."""
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise UserError(
            "a hidden state is zero or not finite; check the weights, or measure in float32"
        )
    cosines = (states / lengths) @ (states / lengths).T
    distances: NDArray[np.float64] = np.arccos(np.clip(cosines, -1, 1)) / np.pi
    np.fill_diagonal(distances, 0)
    return distances


def measure(model: Path, prompts: Sequence[Sequence[int]], dtype: str, device: str) -> Importance:
    """Run prompts (token ids) one at a time through a checkpoint directory, by transformers.

    `dtype` is torch's name of the type to compute in; `device` is "cpu", or "auto" to spread the
    layers over all GPUs (needs accelerate). UserError for prompts that the model can't take.
    """
    import torch
    import transformers
    from transformers import AutoModelForCausalLM

    if not prompts:
        raise UserError("importance needs at least one calibration prompt")
    refuse_misread(model, transformers.__version__)
    loaded = AutoModelForCausalLM.from_pretrained(
        model,
        device_map=device if device != "cpu" else None,
        **{dtype_keyword(transformers.__version__): getattr(torch, dtype)},
    )
    loaded.eval()
    largest = max(max(prompt, default=-1) for prompt in prompts)
    if largest >= loaded.config.vocab_size or not all(prompts):
        raise UserError(
            f"{model} knows token ids below {loaded.config.vocab_size}, but calibration prompts "
            f"have {largest} or are empty; use the dataset made for this model"
        )
    layers = loaded.get_decoder().layers
    sums = np.zeros(len(layers))
    distances = np.zeros((len(layers) + 1, len(layers) + 1))
    states: list[NDArray[np.float64]] = []

    def add_output(number: int, output: Any) -> None:
        sums[number] += float(_first(output).double().abs().sum())

    def add_state(state: Any) -> None:
        states.append(_first(state)[0, -1].double().cpu().numpy())

    for number, layer in enumerate(layers):
        # Before transformers 5 Mixtral's feed-forward network had a name of its own.
        network = layer.mlp if hasattr(layer, "mlp") else layer.block_sparse_moe
        network.register_forward_hook(lambda _, __, output, n=number: add_output(n, output))
        layer.register_forward_pre_hook(
            lambda _, inputs, named: add_state(inputs or named["hidden_states"]), with_kwargs=True
        )
    layers[-1].register_forward_hook(lambda _, __, output: add_state(output))
    with torch.inference_mode():
        for prompt in prompts:
            states.clear()
            loaded(torch.tensor([prompt], device=loaded.device), use_cache=False)
            distances += angular_distances(np.stack(states))
    return Importance(sums, distances / len(prompts), len(prompts))


def _first(value: Any) -> Any:
    """Modules return a tensor, or a tuple that begins with it."""
    return value[0] if isinstance(value, tuple) else value
