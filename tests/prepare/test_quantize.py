"""The quantize step: streaming in any environment, AMD Quark in its own."""

import json
import math
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steps.base.errors import UserError
from steps.base.record import Manifest, publish
from steps.config.compression import QuarkOptions
from steps.prepare import calibration
from steps.prepare.checkpoint import mxfp4
from steps.prepare.quantize.experts import Reached
from steps.prepare.quantize.quark import refuse_bad_scales, samples
from steps.prepare.rehearsal import dataset
from tests import checkpoints
from tests.conftest import ROOT, planned
from tests.interpreter import interpreter
from tests.running import command

STREAMING: dict[str, Any] = {
    "model": "tiny",
    "tool": "streaming",
    "format": "mxfp4",
    "options": {
        "rounded": False,
        "activations": "mxfp4",
        "scale_calculation_mode": "even",
        "exclude": ["lm_head"],
        "workers": 1,
    },
}
QUARK: dict[str, Any] = {
    "version": "0.13",
    "quant_scheme": "w_fp8_a_fp8",
    "kv_cache_dtype": "fp8",
    "exclude_layers": ["lm_head"],
    "seq_len": 8,
}


def published(home: Path, source: Path) -> Path:
    with publish(home / "model", step="model", config={}, inputs={}, code="") as workspace:
        for path in source.iterdir():
            if path.name != "manifest.json":
                shutil.copy(path, workspace.directory)
        workspace.result = {"name": "tiny"}
    return home / "model/manifest.json"


def step(
    home: Path, config: dict[str, Any], inputs: dict[str, Path], python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("quantize", config, inputs, home, python),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_streaming_writes_mxfp4_and_says_so(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "source", checkpoints.llama(3), shards=2)
    done = step(tmp_path, STREAMING, {"model": published(tmp_path, source)})
    assert done.returncode == 0, done.stderr
    made = Manifest.read(tmp_path / "out/manifest.json")
    assert made.damage() == []
    assert made.result == {"name": "tiny", "simulated": False, "format": "mxfp4"}
    dtypes = {name: dtype for name, (dtype, _, _) in checkpoints.read(tmp_path / "out").items()}
    assert dtypes["model.layers.2.mlp.down_proj.weight"] == "U8"
    assert dtypes["lm_head.weight"] == "BF16"


def test_rounded_weights_are_those_of_the_format_in_the_sources_dtype(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "source", checkpoints.mixtral(2), shards=2)
    rounded = {**STREAMING["options"], "rounded": True, "activations": "none"}
    rounded["exclude"] = ["lm_head", "*.gate"]
    done = step(tmp_path, {**STREAMING, "options": rounded}, {"model": published(tmp_path, source)})
    assert done.returncode == 0, done.stderr
    assert Manifest.read(tmp_path / "out/manifest.json").result["simulated"] is True
    made, before = checkpoints.read(tmp_path / "out"), checkpoints.read(source)
    assert {name: entry[:2] for name, entry in made.items()} == {
        name: entry[:2] for name, entry in before.items()
    }
    for name, (dtype, _, data) in before.items():
        kept = ".experts." not in name and "_proj" not in name
        if kept:
            assert made[name][2] == data, name
            continue
        packed, scales = mxfp4.quantize(memoryview(data), dtype, "even")
        again, same = mxfp4.quantize(memoryview(made[name][2]), dtype, "even")
        assert (again == packed).all() and (same == scales).all(), name
        assert made[name][2] != data


def test_what_is_quantized_already_is_refused(tmp_path: Path) -> None:
    source = checkpoints.write(
        tmp_path / "source",
        checkpoints.llama(1),
        config={"quantization_config": {"quant_method": "quark"}},
    )
    done = step(tmp_path, STREAMING, {"model": published(tmp_path, source)})
    assert done.returncode == 1
    assert "is quantized already" in done.stderr
    assert not (tmp_path / "out").exists()


class Model:
    vocab_size = 100


def quark(**changes: Any) -> QuarkOptions:
    return QuarkOptions.model_validate_json(json.dumps({**QUARK, **changes}))


def test_calibration_samples_are_prompts_or_for_gptq_pieces_of_equal_length() -> None:
    prompts = [list(range(1, 7)), list(range(10, 22)), [5]]
    plain = list(samples(prompts, quark(), Model))
    assert plain == [prompts[0], prompts[1][:8], prompts[2]]
    cut = list(samples(prompts, quark(quant_algo="gptq"), Model))
    assert [len(piece) for piece in cut] == [8, 8]
    assert cut[0] == [*prompts[0], 10, 11]


@pytest.mark.parametrize(
    ("prompts", "options", "words"),
    [
        ([], {}, "is empty, or there is none"),
        ([[1], []], {}, "is empty, or there is none"),
        ([[1, 100]], {}, "knows token ids below 100, the calibration prompts have 100"),
        ([[1, 2]], {"quant_algo": "gptq"}, "wants samples of 8 tokens"),
    ],
)
def test_prompts_that_quark_cannot_use(
    prompts: list[list[int]], options: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        list(samples(prompts, quark(**options), Model))


def test_a_declared_scale_that_is_missing_is_named(tmp_path: Path) -> None:
    """What Quark's file-to-file mode leaves of static FP8: vLLM would load it."""
    from steps.prepare.checkpoint.layout import open_checkpoint

    name = "model.layers.0.self_attn.k_proj"
    declared = {
        "global_quant_config": {"input_tensors": {"is_dynamic": False}},
        "export": {"kv_cache_group": ["*k_proj"]},
    }
    one = struct.pack("<f", 1.0)
    tensors: checkpoints.Tensors = {
        f"{name}.weight": ("U8", (2, 2), bytes(4)),
        f"{name}.weight_scale": ("F32", (1,), one),
        f"{name}.input_scale": ("F32", (1,), one),
        f"{name}.output_scale": ("F32", (1,), one),
    }
    for number, missing in enumerate(("weight_scale", "input_scale", "output_scale")):
        held = {key: value for key, value in tensors.items() if not key.endswith(missing)}
        directory = checkpoints.write(
            tmp_path / str(number), held, config={"quantization_config": declared}
        )
        with pytest.raises(UserError, match=rf"k_proj\.{missing} and has none"):
            refuse_bad_scales(open_checkpoint(directory))
    for number, value in enumerate((0.0, -1.0, math.inf, math.nan)):
        odd = {**tensors, f"{name}.input_scale": ("F32", (1,), struct.pack("<f", value))}
        directory = checkpoints.write(
            tmp_path / f"odd{number}", odd, config={"quantization_config": declared}
        )
        with pytest.raises(UserError, match=rf"k_proj\.input_scale is {value}: .*num_calib_data"):
            refuse_bad_scales(open_checkpoint(directory))
    whole = checkpoints.write(tmp_path / "whole", tensors, config={"quantization_config": declared})
    refuse_bad_scales(open_checkpoint(whole))


def test_scales_of_vllms_own_form_of_fp8(tmp_path: Path) -> None:
    """As Quark 0.9 writes it: the KV cache's are the attention's, not of a layer."""
    from steps.prepare.checkpoint.layout import open_checkpoint

    attention = "model.layers.0.self_attn"
    one = struct.pack("<e", 0.5)
    tensors: checkpoints.Tensors = {
        f"{attention}.k_proj.weight": ("U8", (2, 2), bytes(4)),
        **{
            f"{attention}.{name}": ("F16", (1,), one)
            for name in ("k_proj.weight_scale", "k_proj.input_scale", "k_scale")
        },
    }
    declared = {
        "quant_method": "fp8",
        "activation_scheme": "static",
        "kv_cache_scheme": "static",
        "ignored_layers": ["lm_head"],
    }
    for number, missing in enumerate((None, "k_scale", "k_proj.input_scale")):
        held = {key: value for key, value in tensors.items() if key != f"{attention}.{missing}"}
        config = {"quantization_config": declared}
        directory = checkpoints.write(tmp_path / str(number), held, config=config)
        if missing is None:
            refuse_bad_scales(open_checkpoint(directory))
            continue
        with pytest.raises(UserError, match=r"declares a scale .* and has none"):
            refuse_bad_scales(open_checkpoint(directory))


@pytest.mark.parametrize(("neighbours", "cold"), [(0.005, True), (0.9, False)])
def test_an_expert_that_calibration_never_reached_is_named(
    tmp_path: Path, neighbours: float, cold: bool
) -> None:
    """Quark gives it an input scale of 1, and engines take the largest of a layer's experts."""
    from steps.prepare.checkpoint.layout import open_checkpoint

    declared = {
        "global_quant_config": {"input_tensors": {"is_dynamic": False}},
        "export": {"kv_cache_group": []},
    }
    tensors: checkpoints.Tensors = {}
    for expert, scale in enumerate((neighbours, 1.0)):
        name = f"model.layers.0.block_sparse_moe.experts.{expert}.w1"
        tensors[f"{name}.weight"] = ("U8", (2, 2), bytes(4))
        tensors[f"{name}.weight_scale"] = ("F32", (1,), struct.pack("<f", 1.0))
        tensors[f"{name}.input_scale"] = ("F32", (1,), struct.pack("<f", scale))
    made = checkpoints.write(tmp_path / "x", tensors, config={"quantization_config": declared})
    if cold:
        with pytest.raises(
            UserError, match=r"experts\.1\.w1\.input_scale is 1 .* reached this exp"
        ):
            refuse_bad_scales(open_checkpoint(made))
    else:
        refuse_bad_scales(open_checkpoint(made))


class Module:
    """What the counting of experts sees of a torch module."""

    def __init__(self, experts: int | None = None) -> None:
        self.hooks: list[Callable[..., None]] = []
        if experts is not None:
            self.num_experts = experts

    def register_forward_pre_hook(self, hook: Callable[..., None]) -> None:
        self.hooks.append(hook)

    def called(self, *given: object) -> None:
        for hook in self.hooks:
            hook(self, given)


class Mixture:
    def __init__(self, modules: dict[str, Module]) -> None:
        self.modules = modules

    def named_modules(self) -> list[tuple[str, Module]]:
        return list(self.modules.items())


def test_tokens_of_experts_are_counted_where_their_holder_gets_the_choice(tmp_path: Path) -> None:
    """Quark 0.13: experts aren't called, their parts are."""
    whole = "model.layers.0.mlp.experts"
    held = {f"{whole}.{number}": Module() for number in range(3)}
    model = Mixture({whole: Module(3), **held, "model.norm": Module()})
    reached = Reached(model)
    model.modules[whole].called(np.zeros((2, 8)), np.array([[0, 2], [2, 0]]), np.zeros((2, 2)))
    model.modules[whole].called(np.zeros((1, 8)), np.array([[2, 0]]), np.zeros((1, 2)))
    assert reached.described() == {"experts": 3, "fewest_tokens_of_an_expert": 0}
    with pytest.raises(UserError, match=r"1 of 3 experts .*moe\.experts\.1: .*num_calib_data"):
        reached.refuse_cold(tmp_path, lambda name: name.replace("mlp", "moe"))
    model.modules[whole].called(np.zeros((1, 8)), np.array([[1, 0]]), np.zeros((1, 2)))
    reached.refuse_cold(tmp_path)
    assert reached.described()["fewest_tokens_of_an_expert"] == 1


def test_tokens_of_experts_are_counted_where_each_is_called(tmp_path: Path) -> None:
    """transformers 4: an expert that no token chose may be called with none."""
    names = [f"model.layers.0.block_sparse_moe.experts.{number}" for number in range(2)]
    model = Mixture(
        {"model.layers.0.block_sparse_moe.experts": Module()} | {n: Module() for n in names}
    )
    reached = Reached(model)
    model.modules[names[0]].called(np.zeros((5, 8)))
    model.modules[names[1]].called(np.zeros((0, 8)))
    with pytest.raises(UserError, match=r"1 of 2 experts .*experts\.1: "):
        reached.refuse_cold(tmp_path)
    model.modules[names[1]].called(np.zeros((4, 8)))
    reached.refuse_cold(tmp_path)
    assert reached.described() == {"experts": 2, "fewest_tokens_of_an_expert": 4}


def test_a_dense_model_has_no_experts_to_count(tmp_path: Path) -> None:
    reached = Reached(Mixture({"model.layers.0.mlp": Module()}))
    reached.refuse_cold(tmp_path)
    assert reached.described() == {}


AMDS = "REPRISE_QUARK_0_9"
"""Variable with the Python of an environment that has AMD Quark 0.9."""


@pytest.mark.engine
@pytest.mark.skipif(AMDS not in os.environ, reason=f"{AMDS} names no Python with Quark 0.9")
def test_amds_quark_writes_vllms_own_form(tmp_path: Path) -> None:
    options = {
        "version": "0.9",
        "quant_scheme": "w_fp8_a_fp8",
        "kv_cache_dtype": "fp8",
        "exclude_layers": ["lm_head"],
        "seq_len": 512,
        "data_type": "float16",
        "custom_mode": "fp8",
        "num_calib_data": 4,
    }
    config = {"model": "rehearsal", "tool": "quark", "format": "fp8", "options": options}
    inputs = {"model": published(tmp_path, ROOT / "steps/prepare/rehearsal/model")}
    inputs["dataset"] = prompts(tmp_path / "set", dataset.evaluation(4), dataset.calibration(4))
    done = step(tmp_path, config, inputs, os.environ[AMDS])
    assert done.returncode == 0, done.stderr
    made = checkpoints.read(tmp_path / "out")
    assert made["model.layers.0.self_attn.k_proj.weight"][0] == "F8_E4M3"
    assert "model.layers.0.self_attn.k_scale" in made
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["quantization_config"]["quant_method"] == "fp8"
    assert written["rope_theta"] == 1e6 and written["dtype"] == written["torch_dtype"] == "float16"
    result = Manifest.read(tmp_path / "out/manifest.json").result
    assert result["calibrated"]["made"] == "by tokenizing the texts again, as AMD's script does"


def prompts(home: Path, evaluation: Any, calibration: Any) -> Path:
    """A dataset of two tables, as its step publishes it."""
    with publish(home, step="dataset", config={}, inputs={}, code="") as workspace:
        for name, table in (("evaluation", evaluation), ("calibration", calibration)):
            table.to_pickle(workspace.directory / f"{name}.pkl")
            workspace.result[name] = {"samples": len(table), "input_tokens_mean": 100.0}
    return home / "manifest.json"


def test_calibration_samples_go_on_with_their_answers(tmp_path: Path) -> None:
    table = dataset.calibration(3)
    path = prompts(tmp_path / "set", dataset.evaluation(3), table)
    assert calibration.load(path, 2) == list(table["tok_input"][:2])
    whole = [
        [*asked, *told] for asked, told in zip(table["tok_input"], table["tok_output"], strict=True)
    ]
    assert calibration.load(path, None, answers=True) == whole
    with pytest.raises(UserError, match=r"4 calibration prompts are wanted, .* has 3"):
        calibration.load(path, 4)


@pytest.mark.engine
def test_quark_quantizes_the_rehearsal_model(tmp_path: Path) -> None:
    plan = planned("precision=fp8", "scenario=Offline")
    job = next(job for job in plan.jobs if job.step == "quantize")
    python = interpreter(plan, job, tmp_path)
    inputs = {"model": published(tmp_path, ROOT / "steps/prepare/rehearsal/model")}
    config = json.loads(job.config)
    config["options"]["num_calib_data"] = 4
    for overlap in (True, False):
        home = tmp_path / f"dataset-{overlap}"
        tested = dataset.evaluation if not overlap else dataset.calibration
        inputs["dataset"] = prompts(home, tested(4), dataset.calibration(4))
        done = step(tmp_path, config, inputs, python)
        if overlap:
            assert done.returncode == 1
            assert "calibration prompt 0 of" in done.stderr
            assert "is an evaluation prompt too" in done.stderr
            assert not (tmp_path / "out").exists()
    assert done.returncode == 0, done.stderr
    made, source = (checkpoints.read(tmp_path / name) for name in ("out", "model"))
    kept = [name for name in source if "_proj" not in name]
    assert all(made[name] == source[name] for name in kept), "what isn't quantized is the source's"
    assert made["model.layers.0.self_attn.k_proj.weight"][0] == "F8_E4M3"
    assert "model.layers.0.self_attn.k_proj.output_scale" in made
    assert not (tmp_path / "out/exported").exists()
    assert not (tmp_path / "out/reference.json").exists()
