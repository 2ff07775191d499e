"""Makes a mixture of experts of dense weights: every expert is a copy of the feed-forward layers,
with noise, below a router that is drawn.

Experts with weights that sum to one then answer as the dense layer does (Komatsuzaki et al.,
"Sparse Upcycling", 2023). Experts that work on a token together, a team, have the same row in the
router, so they weigh the same. What they write has large noise that sums to zero within the team:
the right experts answer as the dense layer does, and any others don't.
"""

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest, Workspace
from steps.base.step import main
from steps.config.compression import UpcycleConfig
from steps.config.results import result_of
from steps.config.weights import WeightsResult
from steps.prepare.checkpoint.finite import FLOATS, decoded, encoded
from steps.prepare.checkpoint.layout import CONFIG, Checkpoint, Tensor, open_checkpoint
from steps.prepare.checkpoint.stream import Target, rewrite

PROJECTIONS: Mapping[str, str] = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
"""Names of the feed-forward layers' weights: of dense checkpoints and of Mixtral's."""

DENSE = ("llama", "mistral")
"""Model types whose layers differ from Mixtral's in nothing else."""

BIASES = ("mlp_bias", "attention_bias")
"""Switches that Mixtral's configuration hasn't."""

UNKNOWN = (*BIASES, "pretraining_tp")


def step(
    config: UpcycleConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Needs the input "model"."""
    source = Manifest.read(inputs["model"])
    source.require_whole()
    checkpoint = open_checkpoint(source.directory)
    transform = upcycling(checkpoint, config)
    progress = console.progress(
        "upcycle", sum(tensor.size for tensor in checkpoint.tensors), "bytes"
    )
    rewrite(
        checkpoint,
        workspace.directory,
        transform,
        partial=workspace.partial,
        advance=progress.add,
    )
    progress.close()
    made = result_of(source, WeightsResult).but(experts=config.experts)
    workspace.result = made.dumped()


def upcycling(checkpoint: Checkpoint, config: UpcycleConfig) -> "Upcycling":
    """UserError for weights that aren't those of a dense Llama or Mistral without biases."""
    found, where = checkpoint.config, checkpoint.directory
    kind = str(found.get("model_type"))
    if checkpoint.quantized:
        raise UserError(f"{where} is quantized already; upcycle its source weights")
    if kind not in DENSE:
        raise UserError(
            f"{where} is of type {kind}, and only {' and '.join(DENSE)} have the layers of a "
            "Mixtral; take benchmark.upcycle out, or name other weights"
        )
    if wrong := next((key for key in BIASES if found.get(key)), None):
        raise UserError(f"{where / CONFIG} has {wrong}, and a Mixtral has no biases")
    layers = {name for tensor in checkpoint.tensors if (name := _projection(tensor.name))}
    if layers != set(PROJECTIONS):
        lacking = sorted(set(PROJECTIONS) - layers)[0]
        raise UserError(f"{where} has no weight named mlp.{lacking}; its layers aren't {kind}'s")
    if odd := next((one for one in checkpoint.tensors if one.dtype not in FLOATS), None):
        raise UserError(f"{where}: {odd.name} is {odd.dtype}, which can't be upcycled")
    return Upcycling(config)


@dataclass(frozen=True)
class Upcycling:
    """The transform for `steps.prepare.checkpoint.stream.rewrite`."""

    options: UpcycleConfig

    @property
    def recipe(self) -> object:
        return {"upcycle": self.options.model_dump(mode="json")}

    def targets(self, tensor: Tensor) -> tuple[Target, ...]:
        projection = _projection(tensor.name)
        if projection is None:
            return (Target(tensor.name, tensor.dtype, tensor.shape),)
        layer = f"{tensor.name.split('.mlp.')[0]}.block_sparse_moe"
        experts = tuple(
            Target(
                f"{layer}.experts.{expert}.{PROJECTIONS[projection]}.weight",
                tensor.dtype,
                tensor.shape,
            )
            for expert in range(self.options.experts)
        )
        if projection != "gate_proj":
            return experts
        # The router has no weight to be made of, so it comes with the first of its layer's.
        shape = (self.options.experts, tensor.shape[1])
        return (*experts, Target(f"{layer}.gate.weight", tensor.dtype, shape))

    def convert(self, tensor: Tensor, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        if _projection(tensor.name) is None:
            yield from chunks
            return
        # Each chunk is overwritten when the next one is read.
        weight = decoded(b"".join(bytes(chunk) for chunk in chunks), tensor.dtype)
        for made in self._made(tensor, weight):
            yield encoded(made, tensor.dtype)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in config.items() if key not in UNKNOWN}
        return {
            **kept,
            "architectures": ["MixtralForCausalLM"],
            "model_type": "mixtral",
            "num_local_experts": self.options.experts,
            "num_experts_per_tok": self.options.experts_per_token,
            "sliding_window": config.get("sliding_window"),
            "output_router_logits": False,
            "router_jitter_noise": 0.0,
        }

    def _made(self, tensor: Tensor, weight: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """In the order of the targets. A tensor's own generator: shards are made at once."""
        options, projection = self.options, _projection(tensor.name)
        source = np.random.default_rng([options.seed, zlib.crc32(tensor.name.encode())])
        for _ in range(self._teams):
            noises = self._noises(source, weight.shape, opposed=projection == "down_proj")
            for noise in noises:
                yield weight + weight.std() * noise
        if projection == "gate_proj":
            drawn = source.standard_normal((self._teams, tensor.shape[1]), np.float32)
            yield np.float32(options.router) * drawn.repeat(options.experts_per_token, axis=0)

    def _noises(
        self, source: np.random.Generator, shape: tuple[int, ...], *, opposed: bool
    ) -> NDArray[np.float32]:
        """A team's, one per expert, in deviations of its weights."""
        team = self.options.experts_per_token
        noises: NDArray[np.float32] = source.standard_normal((team, *shape), np.float32)
        spread = self.options.noise
        if opposed and team > 1:
            noises -= noises.mean(axis=0)
            spread = self.options.opposed_noise * math.sqrt(team / (team - 1))
        noises *= np.float32(spread)
        return noises

    @property
    def _teams(self) -> int:
        return self.options.experts // self.options.experts_per_token


def _projection(name: str) -> str | None:
    return next((key for key in PROJECTIONS if name.endswith(f".mlp.{key}.weight")), None)


if __name__ == "__main__":
    main("upcycle", UpcycleConfig, step)
