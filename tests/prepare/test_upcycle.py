"""A mixture of experts made of dense weights: names, values, and what can't be one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from steps.base.errors import UserError
from steps.config.compression import UpcycleConfig
from steps.prepare.checkpoint.finite import decoded, encoded
from steps.prepare.checkpoint.layout import open_checkpoint
from steps.prepare.checkpoint.stream import rewrite
from steps.prepare.upcycle import PROJECTIONS, upcycling
from tests import checkpoints
from tests.conftest import planned

HIDDEN = 32
SETTINGS: dict[str, Any] = {
    "experts": 4,
    "experts_per_token": 2,
    "noise": 0.1,
    "opposed_noise": 1.0,
    "router": 0.5,
    "seed": 3,
}


def dense(dtype: str, wide: int = 64, layers: int = 2) -> checkpoints.Tensors:
    generator = np.random.default_rng(5)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (50, HIDDEN)}
    for layer in range(layers):
        name = f"model.layers.{layer}."
        shapes[f"{name}self_attn.q_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{name}mlp.gate_proj.weight"] = (wide, HIDDEN)
        shapes[f"{name}mlp.up_proj.weight"] = (wide, HIDDEN)
        shapes[f"{name}mlp.down_proj.weight"] = (HIDDEN, wide)
        shapes[f"{name}input_layernorm.weight"] = (HIDDEN,)
    shapes |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (50, HIDDEN)}
    return {
        name: (dtype, shape, checkpoints.random_bytes(generator, dtype, shape))
        for name, shape in shapes.items()
    }


def made(home: Path, source: Path, **changes: Any) -> Path:
    checkpoint = open_checkpoint(source)
    config = UpcycleConfig(**{**SETTINGS, **changes})
    rewrite(checkpoint, home, upcycling(checkpoint, config))
    return home


def values(tensors: checkpoints.Tensors, name: str) -> np.ndarray:
    dtype, shape, data = tensors[name]
    return decoded(data, dtype).reshape(shape)


@settings(max_examples=12)
@given(
    st.sampled_from(["BF16", "F16", "F32"]), st.integers(1, 3), st.integers(1, 3), st.integers(2, 3)
)
def test_a_team_of_experts_is_the_dense_layer_and_no_other_is(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, shards: int, teams: int, team: int
) -> None:
    home, source = tmp_path_factory.mktemp("upcycle"), dense(dtype)
    config = {"dtype": checkpoints.NAMES[dtype]}
    checkpoints.write(home / "dense", source, shards=shards, config=config)
    experts = teams * team
    directory = made(home / "out", home / "dense", experts=experts, experts_per_token=team)
    found = checkpoints.read(directory)
    kept = [name for name in source if ".mlp." not in name]
    assert {name: found[name] for name in kept} == {name: source[name] for name in kept}
    assert len(found) == len(kept) + 2 * (3 * experts + 1)
    for layer in range(2):
        moe = f"model.layers.{layer}.block_sparse_moe"
        router = values(found, f"{moe}.gate.weight").reshape(teams, team, HIDDEN)
        assert np.ptp(router, axis=1).max() == 0
        assert len(np.unique(router[:, 0], axis=0)) == teams
        for dense_name, expert_name in PROJECTIONS.items():
            weight = values(source, f"model.layers.{layer}.mlp.{dense_name}.weight")
            copies = np.array(
                [
                    values(found, f"{moe}.experts.{number}.{expert_name}.weight")
                    for number in range(experts)
                ]
            ).reshape(teams, team, *weight.shape)
            wanted = 1.0 if dense_name == "down_proj" else 0.1
            shares = (copies - weight).std(axis=(2, 3)) / weight.std()
            assert np.all(np.abs(shares / wanted - 1) < 0.2)
            assert not np.array_equal(copies[0, 0], copies[0, 1])
            if dense_name == "down_proj":
                off = np.abs(copies.mean(axis=1) - weight)
                assert off.max() < 2.0**-7 * np.abs(copies).max()


def test_without_noise_every_expert_is_the_dense_layer_bit_for_bit(tmp_path: Path) -> None:
    """Of weights that are longer than what is read at a time."""
    source = dense("BF16", wide=40_000, layers=1)
    checkpoints.write(tmp_path / "dense", source)
    directory = made(tmp_path / "out", tmp_path / "dense", noise=0.0, opposed_noise=0.0)
    found = checkpoints.read(directory)
    for dense_name, expert_name in PROJECTIONS.items():
        expected = source[f"model.layers.0.mlp.{dense_name}.weight"]
        for number in range(4):
            name = f"model.layers.0.block_sparse_moe.experts.{number}.{expert_name}.weight"
            assert found[name] == expected


def test_a_seed_gives_the_same_weights_however_they_are_sharded(tmp_path: Path) -> None:
    source = dense("BF16")
    read = []
    for number, (shards, seed) in enumerate(((1, 3), (3, 3), (1, 4))):
        directory = checkpoints.write(tmp_path / f"dense{number}", source, shards=shards)
        read.append(checkpoints.read(made(tmp_path / f"out{number}", directory, seed=seed)))
    assert read[0] == read[1] != read[2]


def test_the_configuration_is_mixtrals(tmp_path: Path) -> None:
    stated = {"mlp_bias": False, "attention_bias": False, "pretraining_tp": 1, "rope_theta": 1e6}
    checkpoints.write(tmp_path / "dense", dense("BF16"), config=stated)
    directory = made(tmp_path / "out", tmp_path / "dense")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["MixtralForCausalLM"]
    assert (config["num_local_experts"], config["num_experts_per_tok"]) == (4, 2)
    assert config["rope_theta"] == 1e6 and config["num_hidden_layers"] == 2
    assert not {"mlp_bias", "attention_bias", "pretraining_tp"} & config.keys()
    assert (directory / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "mixtral"}, "of type mixtral, and only llama and mistral"),
        ({"mlp_bias": True}, "has mlp_bias, and a Mixtral has no biases"),
        ({"quantization_config": {"quant_method": "fp8"}}, "is quantized already"),
    ],
)
def test_what_is_no_dense_llama_is_refused(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    checkpoints.write(tmp_path / "dense", dense("BF16"), config=config)
    with pytest.raises(UserError, match=said):
        made(tmp_path / "out", tmp_path / "dense")
    assert not (tmp_path / "out").exists()


def test_layers_of_other_names_and_types_are_refused(tmp_path: Path) -> None:
    source = dense("BF16")
    lacking = {name: held for name, held in source.items() if "up_proj" not in name}
    checkpoints.write(tmp_path / "lacking", lacking)
    with pytest.raises(UserError, match=r"no weight named mlp\.up_proj"):
        made(tmp_path / "out", tmp_path / "lacking")
    name = "model.layers.0.mlp.up_proj.weight"
    odd = {**source, name: ("U8", (64, HIDDEN), bytes(64 * HIDDEN))}
    checkpoints.write(tmp_path / "odd", odd)
    with pytest.raises(UserError, match=r"up_proj\.weight is U8, which can't be upcycled"):
        made(tmp_path / "out", tmp_path / "odd")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experts_per_token": 5}, "4 experts aren't whole teams of 5"),
        ({"experts_per_token": 3}, "4 experts aren't whole teams of 3"),
        ({"experts_per_token": 1}, "opposed_noise needs experts_per_token above 1"),
    ],
)
def test_teams_that_are_not_whole_are_no_configuration(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        UpcycleConfig(**{**SETTINGS, **changes})


@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), max_size=20))
def test_values_are_rounded_to_the_nearest_bf16(given_values: list[float]) -> None:
    exact = np.array(given_values, np.float32)
    back = decoded(bytes(encoded(exact, "BF16")), "BF16")
    assert np.all(np.abs(back - exact) <= np.abs(exact) * 2.0**-8 + 1e-40)
    assert bytes(encoded(back, "BF16")) == bytes(encoded(exact, "BF16"))


def test_the_plan_makes_experts_before_anything_else_changes_the_weights() -> None:
    plan = planned("experiment=rehearsal-mixtral", "precision=bf16,fp8")
    jobs = {job.output: job for job in plan.jobs}
    (upcycled,) = (job for job in plan.jobs if job.step == "upcycle")
    (quantized,) = (job for job in plan.jobs if job.step == "quantize")
    assert jobs[upcycled.inputs["model"]].step == "model"
    assert quantized.inputs["model"] == upcycled.output
    runs = {job.key: job.inputs["model"] for job in plan.jobs if job.step == "performance_run"}
    assert set(runs.values()) == {upcycled.output, quantized.output}
    # Each way of changing the weights is looked at before anything is measured.
    looked = {jobs[gate].key for job in plan.jobs for gate in job.gates if gate in jobs}
    assert any(key.endswith("/upcycle") for key in looked)


def test_the_closed_division_takes_no_experts_made_of_other_weights() -> None:
    with pytest.raises(UserError, match=r"benchmark rehearsal-mixtral isn't allowed: its experts"):
        planned("experiment=rehearsal-mixtral", "system.division=closed")
