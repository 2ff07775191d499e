"""Drop a block of decoder layers from a checkpoint, shard by shard; no weight changes."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.prepare.checkpoint.layout import Checkpoint, Tensor, layers, open_checkpoint
from steps.prepare.checkpoint.stream import Target, rewrite

# The dots are escaped where a quantization config holds regular expressions ("re:...").
_NUMBERED = re.compile(r"(?:^|[.:])layers\\?[.](\d+)(?=\\?[.]|$)")

INDICES = ("moe_layers", "mlp_only_layers", "cross_attention_layers", "attn_layer_indices")
"""Lists of layer numbers in config.json; any other list with "layer" or "block" in its
name and one entry per layer has a value for each layer."""

LEADING = ("first_k_dense_replace", "max_window_layers")
"""Keys that count layers from the first one."""

PERIODS: Mapping[str, tuple[str, ...]] = {
    "sliding_window_pattern": ("layer_types",),
    "full_attention_interval": ("layer_types",),
    "no_rope_layer_interval": ("no_rope_layers",),
    "interleave_moe_layer_step": ("moe_layers",),
    "decoder_sparse_step": (),
    "attn_layer_period": (),
    "expert_layer_period": (),
}
"""Keys of a period in layers, unless one of these lists names the layers."""


@dataclass(frozen=True)
class Block:
    """Layers `first` to `last`, both included, counted from 0."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def renumber(self, name: str) -> str | None:
        """A tensor's or module's name after pruning; None if dropped; unchanged without a layer."""
        found = _NUMBERED.search(name)
        if not found:
            return name
        number = int(found[1])
        if self.first <= number <= self.last:
            return None
        if number < self.first:
            return name
        return f"{name[: found.start(1)]}{number - len(self)}{name[found.end(1) :]}"


@dataclass(frozen=True)
class Prune:
    """The transform for `steps.prepare.checkpoint.stream.rewrite`; `layers` of the source."""

    block: Block
    layers: int

    @property
    def recipe(self) -> object:
        return {"prune": [self.block.first, self.block.last]}

    def targets(self, tensor: Tensor) -> tuple[Target, ...]:
        name = self.block.renumber(tensor.name)
        return () if name is None else (Target(name, tensor.dtype, tensor.shape),)

    def convert(self, tensor: Tensor, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        return chunks

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        pruned = {**config, "num_hidden_layers": self.layers - len(self.block)}
        for key, value in config.items():
            if isinstance(value, list):
                pruned[key] = self._listed(key, value)
            elif key in LEADING and type(value) is int:
                gone = range(self.block.first, min(self.block.last + 1, value))
                pruned[key] = value - len(gone)
        if isinstance(config.get("quantization_config"), Mapping):
            pruned["quantization_config"] = self._renumbered(config["quantization_config"])
        return pruned

    def _listed(self, key: str, entries: list[Any]) -> list[Any]:
        """Without the block's entries, and with the layers' new numbers."""
        first, last = self.block.first, self.block.last
        numbers = sorted({entry for entry in entries if type(entry) is int})
        every = numbers == list(range(self.layers)) and len(entries) == self.layers > 2
        if key in INDICES or ("layer" in key and every):
            kept = [number for number in entries if not first <= number <= last]
            return [number - len(self.block) * (number > last) for number in kept]
        if len(entries) == self.layers and ("layer" in key or "block" in key):
            return entries[:first] + entries[last + 1 :]
        return entries

    def _renumbered(self, value: Any) -> Any:
        """Layer names wherever a quantization config has them: in lists and as keys.

        Patterns over layers ("*.gate", "model.layers.*.mlp") apply to the remaining ones.
        """
        if isinstance(value, Mapping):
            named = ((self.block.renumber(key), entry) for key, entry in value.items())
            return {name: self._renumbered(entry) for name, entry in named if name is not None}
        if isinstance(value, list):
            entries = (
                self.block.renumber(entry) if isinstance(entry, str) else self._renumbered(entry)
                for entry in value
            )
            return [entry for entry in entries if entry is not None]
        return value


def prune_transform(source: Checkpoint, block: Block) -> Prune:
    """UserError when the block leaves no layer, names one that doesn't exist, or the checkpoint
    doesn't hold the layers that its config.json counts."""
    count = layers(source.config, source.directory)
    if not 0 <= block.first <= block.last < count or len(block) == count:
        raise UserError(
            f"can't drop layers {block.first} to {block.last} of {source.directory}: it has "
            f"layers 0 to {count - 1} and must keep one"
        )
    found = [match for tensor in source.tensors if (match := _NUMBERED.search(tensor.name))]
    if len(stacks := sorted({match.string[: match.start(1)] for match in found})) > 1:
        raise UserError(
            f"{source.directory} has {' and '.join(stacks)}: only models with one stack of "
            "layers can be pruned"
        )
    held = {int(match[1]) for match in found}
    if held != set(range(count)):
        odd = sorted(held ^ set(range(count)))[0]
        raise UserError(
            f"{source.directory}: config.json counts {count} layers, but the shards "
            f"{'have a' if odd in held else 'have no'} layer {odd}; fetch the checkpoint again"
        )
    _check_periods(source, block, count)
    _check_lists(source, count)
    return Prune(block, count)


def _check_periods(source: Checkpoint, block: Block, count: int) -> None:
    """UserError if the layers after the block would change their kind."""
    for key, lists in PERIODS.items():
        period = source.config.get(key)
        named = any(isinstance(source.config.get(name), list) for name in lists)
        if type(period) is not int or period < 2 or named or block.last == count - 1:
            continue
        if len(block) % period:
            raise UserError(
                f"{source.directory}: config.json has {key} {period}, so {len(block)} layers less "
                "would change the kind of those after them; drop a multiple of it"
            )


def _check_lists(source: Checkpoint, count: int) -> None:
    """UserError for a list of layers that is neither numbers nor one entry each."""
    for key, value in source.config.items():
        if not isinstance(value, list) or not value:
            continue
        bad = [n for n in value if type(n) is not int or not 0 <= n < count]
        if key in INDICES and bad:
            raise UserError(
                f"{source.directory}: {key} in config.json names layer {bad[0]!r}, which isn't one "
                f"of its {count}; fix it"
            )
        if key not in INDICES and len(value) != count and re.search(r"(^|_)layers?(_|$)", key):
            raise UserError(
                f"{source.directory}: {key} in config.json has {len(value)} entries and the model "
                f"{count} layers; prune can't tell which entry belongs to which layer, so "
                "remove it or complete it"
            )


def prune(
    source: Path,
    destination: Path,
    block: Block,
    *,
    partial: Path | None = None,
    workers: int = 1,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the checkpoint directory `source` without a block; the rest goes to `rewrite`."""
    checkpoint = open_checkpoint(source)
    transform = prune_transform(checkpoint, block)
    rewrite(checkpoint, destination, transform, partial=partial, workers=workers, advance=advance)
