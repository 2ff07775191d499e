"""Depth pruning: which layers stay, under which names, and what config.json says then."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.base.record import Manifest, publish
from steps.prepare.checkpoint.layout import open_checkpoint
from steps.prepare.checkpoint.quantize import Mxfp4Config, mxfp4_transform
from steps.prepare.checkpoint.stream import rewrite
from steps.prepare.prune.block import Block, prune
from steps.prepare.prune.importance import Importance, angular_distances
from tests import checkpoints
from tests.conftest import ROOT
from tests.running import command


def config_of(directory: Path) -> dict[str, object]:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    assert isinstance(config, dict)
    return config


def renumbered(tensors: checkpoints.Tensors, kept: list[int]) -> checkpoints.Tensors:
    found: checkpoints.Tensors = {}
    for name, held in tensors.items():
        parts = name.split(".")
        if parts[1] == "layers":
            if int(parts[2]) not in kept:
                continue
            parts[2] = str(kept.index(int(parts[2])))
        found[".".join(parts)] = held
    return found


@settings(max_examples=25)
@given(st.data())
def test_any_block_of_any_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    layers = data.draw(st.integers(2, 7))
    first = data.draw(st.integers(0, layers - 1))
    last = data.draw(st.integers(first, layers - 1))
    if last - first + 1 == layers:
        last -= 1
    if last < first:
        return
    home = tmp_path_factory.mktemp("prune")
    tensors = checkpoints.llama(layers, hidden=32)
    types = [f"type_{layer}" for layer in range(layers)]
    source = checkpoints.write(
        home / "source",
        tensors,
        shards=data.draw(st.integers(1, 6)),
        config={"layer_types": types, "hidden_size": 32},
    )
    prune(source, home / "out", Block(first, last))
    kept = [layer for layer in range(layers) if not first <= layer <= last]
    assert checkpoints.read(home / "out") == renumbered(tensors, kept)
    config = config_of(home / "out")
    assert config["num_hidden_layers"] == len(kept)
    assert config["layer_types"] == [types[layer] for layer in kept]
    assert config["hidden_size"] == 32
    assert open_checkpoint(home / "out").config == config


@settings(max_examples=25)
@given(st.data())
def test_lists_of_layers_lose_what_the_block_had(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whether they hold something of each layer or layers' numbers."""
    layers = data.draw(st.integers(3, 6))
    first = data.draw(st.integers(0, layers - 1))
    last = data.draw(st.integers(first, min(first + layers - 2, layers - 1)))
    flags = data.draw(st.lists(st.sampled_from([0, 1]), min_size=layers, max_size=layers))
    some = data.draw(st.lists(st.integers(0, layers - 1), unique=True).map(sorted))
    config = {
        "no_rope_layers": flags,
        "layers_block_type": [f"kind_{layer}" for layer in range(layers)],
        "block_configs": [{"n_heads": layer} for layer in range(layers)],
        "mlp_only_layers": some,
        "moe_layers": list(range(layers)),
        "first_k_dense_replace": data.draw(st.integers(0, layers)),
        "eos_token_id": list(range(layers)),
    }
    home = tmp_path_factory.mktemp("prune")
    source = checkpoints.write(home / "source", checkpoints.llama(layers, 32), config=config)
    prune(source, home / "out", Block(first, last))
    kept = [layer for layer in range(layers) if not first <= layer <= last]
    made = config_of(home / "out")
    assert made["no_rope_layers"] == [flags[layer] for layer in kept]
    assert made["layers_block_type"] == [f"kind_{layer}" for layer in kept]
    assert made["block_configs"] == [{"n_heads": layer} for layer in kept]
    assert made["mlp_only_layers"] == [kept.index(layer) for layer in some if layer in kept]
    assert made["moe_layers"] == list(range(len(kept)))
    dense = config["first_k_dense_replace"]
    assert isinstance(dense, int) and made["first_k_dense_replace"] == len(
        [layer for layer in kept if layer < dense]
    )
    assert made["eos_token_id"] == list(range(layers))


@pytest.mark.parametrize(
    ("config", "block", "complaint"),
    [
        ({"no_rope_layers": [1, 1, 0]}, Block(1, 1), "no_rope_layers .* has 3 entries and the mo"),
        ({"moe_layers": [0, 9]}, Block(1, 1), "moe_layers .* names layer 9, which isn't one of"),
        ({"decoder_sparse_step": 2}, Block(1, 1), "decoder_sparse_step 2, so 1 layers less"),
        ({"sliding_window_pattern": 3}, Block(1, 2), "drop a multiple of it"),
        ({"decoder_sparse_step": 2}, Block(1, 2), None),
        ({"decoder_sparse_step": 2}, Block(5, 5), None),
        ({"sliding_window_pattern": 3, "layer_types": list("abcabc")}, Block(1, 2), None),
    ],
)
def test_layers_that_would_change_their_kind_are_not_pruned(
    tmp_path: Path, config: dict[str, object], block: Block, complaint: str | None
) -> None:
    source = checkpoints.write(tmp_path / "source", checkpoints.llama(6, 32), config=config)
    if complaint is None:
        prune(source, tmp_path / "out", block)
        return
    with pytest.raises(UserError, match=complaint):
        prune(source, tmp_path / "out", block)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("block", "left"), [(Block(59, 84), 100), (Block(62, 103), 84)])
def test_the_blocks_of_amd_in_405b(tmp_path: Path, block: Block, left: int) -> None:
    tensors = checkpoints.llama(126, hidden=32)
    prune(checkpoints.write(tmp_path / "source", tensors, shards=19), tmp_path / "out", block)
    kept = [*range(block.first), *range(block.last + 1, 126)]
    assert len(kept) == left == config_of(tmp_path / "out")["num_hidden_layers"]
    assert checkpoints.read(tmp_path / "out") == renumbered(tensors, kept)


def test_shards_without_a_tensor_left_are_gone(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "source", checkpoints.llama(6), shards=10)
    prune(source, tmp_path / "out", Block(1, 4))
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) < 10
    assert files == [
        f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)
    ]


def test_quantized_and_pruned_is_pruned_and_quantized(tmp_path: Path) -> None:
    """Layer 3's q_proj stays bf16; after pruning layer 1 it is layer 2's."""
    source = checkpoints.write(tmp_path / "source", checkpoints.llama(5), shards=4)

    def quantize(directory: Path, layer: int) -> None:
        checkpoint = open_checkpoint(directory)
        settings = Mxfp4Config(
            activations="none",
            scale_calculation_mode="even",
            exclude=("lm_head", f"model.layers.{layer}.self_attn.q_proj"),
        )
        out = directory.with_name(f"{directory.name}-mxfp4")
        rewrite(checkpoint, out, mxfp4_transform(checkpoint, settings))

    quantize(source, 3)
    prune(tmp_path / "source-mxfp4", tmp_path / "a", Block(1, 1))
    prune(source, tmp_path / "pruned", Block(1, 1))
    quantize(tmp_path / "pruned", 2)
    assert checkpoints.read(tmp_path / "a") == checkpoints.read(tmp_path / "pruned-mxfp4")
    assert config_of(tmp_path / "a") == config_of(tmp_path / "pruned-mxfp4")


def test_layer_names_in_a_quantization_config_are_renumbered(tmp_path: Path) -> None:
    given_config = {
        "exclude": [
            "lm_head",
            "model.layers.1.mlp",
            "model.layers.3.mlp",
            "re:model\\.layers\\.3\\..*",
        ],
        "layer_quant_config": {
            "*q_proj": {"weight": {"dtype": "fp8_e4m3", "block_size": [1, 32]}},
            "model.layers.2.mlp.down_proj": {"weight": None},
            "model.layers.1.mlp.down_proj": {"weight": None},
        },
        "export": {"pack_method": "reorder", "kv_cache_group": ["*k_proj", "*v_proj"]},
    }
    source = checkpoints.write(
        tmp_path / "source", checkpoints.llama(4), config={"quantization_config": given_config}
    )
    prune(source, tmp_path / "out", Block(1, 1))
    assert config_of(tmp_path / "out")["quantization_config"] == {
        "exclude": ["lm_head", "model.layers.2.mlp", "re:model\\.layers\\.2\\..*"],
        "layer_quant_config": {
            "*q_proj": {"weight": {"dtype": "fp8_e4m3", "block_size": [1, 32]}},
            "model.layers.1.mlp.down_proj": {"weight": None},
        },
        "export": {"pack_method": "reorder", "kv_cache_group": ["*k_proj", "*v_proj"]},
    }


@pytest.mark.parametrize(("first", "last"), [(0, 3), (2, 1), (-1, 1), (2, 4)])
def test_impossible_blocks_are_refused(tmp_path: Path, first: int, last: int) -> None:
    source = checkpoints.write(tmp_path / "source", checkpoints.llama(4))
    with pytest.raises(UserError, match=r"it has layers 0 to 3 and must keep one"):
        prune(source, tmp_path / "out", Block(first, last))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"num_hidden_layers": 5}, "counts 5 layers, but the shards have no layer 4"),
        ({"num_hidden_layers": 3}, "counts 3 layers, but the shards have a layer 3"),
        ({"num_hidden_layers": None}, "has no num_hidden_layers"),
    ],
)
def test_layers_have_to_be_what_config_counts(
    tmp_path: Path, config: dict[str, object], words: str
) -> None:
    source = checkpoints.write(tmp_path / "source", checkpoints.llama(4), config=config)
    with pytest.raises(UserError, match=words):
        prune(source, tmp_path / "out", Block(1, 1))


def test_two_stacks_of_layers_are_refused(tmp_path: Path) -> None:
    tensors = checkpoints.llama(2)
    tensors["vision.layers.0.a.weight"] = ("BF16", (1,), bytes(2))
    source = checkpoints.write(tmp_path / "source", tensors)
    with pytest.raises(UserError, match="only models with one stack of layers can be pruned"):
        prune(source, tmp_path / "out", Block(1, 1))


# ---- the block that does least -----------------------------------------------------------------


@given(st.lists(st.integers(0, 50), min_size=2, max_size=12), st.data())
def test_least_by_ffn_output_is_the_least_sum(sums: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(sums) - 1))
    found = Importance(np.array(sums, float), np.zeros((0, 0)), 1).least("ffn_output", count)
    windows = [sum(sums[first : first + count]) for first in range(len(sums) - count + 1)]
    assert found == Block(windows.index(min(windows)), windows.index(min(windows)) + count - 1)


def test_least_by_angular_distance_compares_what_enters_with_what_leaves() -> None:
    # Layers turn the state by 10, 80, -80 and 20 degrees: the middle two undo each other.
    angles = np.radians([0, 10, 90, 10, 30])
    distances = angular_distances(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert np.allclose(distances[0], [0, 10 / 180, 90 / 180, 10 / 180, 30 / 180])
    importance = Importance(np.ones(4), distances, 1)
    assert importance.least("angular_distance", 1) == Block(0, 0)
    assert importance.least("angular_distance", 2) == Block(1, 2)
    with pytest.raises(UserError, match="can't drop 4 of 4 layers"):
        importance.least("angular_distance", 4)


def test_a_state_without_direction_is_no_distance() -> None:
    for bad in (0.0, np.nan):
        with pytest.raises(UserError, match="a hidden state is zero or not finite"):
            angular_distances(np.array([[1.0, 0.0], [bad, 0.0]]))


# ---- the step ----------------------------------------------------------------------------------


def step(home: Path, block: dict[str, object]) -> subprocess.CompletedProcess[str]:
    config = {"layers": 6, "block": block, "when": "before_quantize", "workers": 1}
    return subprocess.run(
        command("prune", config, {"model": home / "model/manifest.json"}, home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def publish_model(home: Path, source: Path) -> None:
    with publish(home / "model", step="model", config={}, inputs={}, code="") as workspace:
        shutil.copytree(source, workspace.directory, dirs_exist_ok=True)
        workspace.result = {"name": "tiny"}


def shards_of(directory: Path) -> set[tuple[str, int]]:
    """Names, and when each was written."""
    return {(path.name, path.stat().st_mtime_ns) for path in directory.glob("*.safetensors")}


def test_the_step_publishes_a_manifest_and_goes_on_from_what_was_finished(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "source", checkpoints.llama(6), shards=4)
    weights = source / "model-00003-of-00004.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-2] + b"\xff\x7f")
    written = weights.stat().st_mtime_ns
    publish_model(tmp_path, source)
    done = step(tmp_path, {"by": "layers", "first": 1, "last": 2})
    assert done.returncode == 1
    assert "holds weights that are NaN or infinite" in done.stderr
    assert not (tmp_path / "out").exists()
    finished = shards_of(tmp_path / "out.partial")
    assert finished
    weights.write_bytes(sound)
    os.utime(weights, ns=(written, written))  # else its source counts as another one
    publish_model(tmp_path, source)
    done = step(tmp_path, {"by": "layers", "first": 1, "last": 2})
    assert done.returncode == 0, done.stderr
    made = Manifest.read(tmp_path / "out" / "manifest.json")
    assert made.damage() == []
    assert made.result == {"name": "tiny", "dropped_layers": [1, 2]}
    assert finished < shards_of(tmp_path / "out")
    assert config_of(tmp_path / "out")["num_hidden_layers"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "model", "out", "source"]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"by": "taste"}, "block: input tag 'taste'"),
        ({"by": "layers", "first": 1}, "block.layers.last: field required"),
        ({"by": "layers", "first": 0, "last": 5}, "a block of 6 layers leaves none of 6"),
    ],
)
def test_the_step_refuses_in_one_sentence(
    tmp_path: Path, block: dict[str, object], words: str
) -> None:
    source = checkpoints.write(tmp_path / "source", checkpoints.llama(6))
    with publish(tmp_path / "model", step="model", config={}, inputs={}, code="") as workspace:
        for path in source.iterdir():
            path.rename(workspace.directory / path.name)
    done = step(tmp_path, block)
    assert done.returncode == 1
    assert words.lower() in done.stderr.lower()
    assert not (tmp_path / "out").exists()
