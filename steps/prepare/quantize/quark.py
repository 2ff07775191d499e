"""AMD Quark in memory, with calibration: FP8 or MXFP4 weights and activations, FP8 KV cache."""

import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from steps.base.errors import UserError
from steps.config.compression import QuarkOptions
from steps.prepare.checkpoint.config_forms import both_forms
from steps.prepare.checkpoint.finite import floats
from steps.prepare.checkpoint.layout import (
    CONFIG,
    INDEX,
    Checkpoint,
    Tensor,
    open_checkpoint,
    read_shard,
)
from steps.prepare.checkpoint.stream import copy_side_files
from steps.prepare.quantize import quark_0_9
from steps.prepare.quantize.experts import Reached

SCHEMES: Mapping[str, str] = {"w_fp8_a_fp8": "fp8", "w_mxfp4_a_mxfp4": "mxfp4"}
"""Quark's schemes, named as in its example script quantize_quark.py."""

NAMES: Mapping[str, Sequence[tuple[str, str]]] = {
    "mixtral": (
        (".mlp.", ".block_sparse_moe."),
        (".gate_proj", ".w1"),
        (".down_proj", ".w2"),
        (".up_proj", ".w3"),
    ),
}
"""Parts of names that transformers 5 changes when it loads a model of this type, with their form in
checkpoints. Quark exports the changed names; engines know those of checkpoints.
"""

UNREACHED = 1.0
"""Quark's scale of what calibration never reached."""

_EXPERT = re.compile(r"\.experts\.\d+\.")

AMDS = "0.9"
"""The version that AMD made its v5.1 weights with."""

THREADS = 1
"""On shared cores a second thread mostly waits, as in steps/prepare/rehearsal/train.py."""


def quantize(
    source: Path,
    destination: Path,
    options: QuarkOptions,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[str] = (),
    begins: Callable[[str], None] = lambda phase: None,
) -> dict[str, Any]:
    """Write `source` quantized to the empty directory `destination`, as vLLM loads it; returns what
    it was calibrated on.

    `prompts` are token ids; Quark 0.9, AMD's for v5.1, takes their `texts` instead, so that the
    weights are AMD's. Else weights that keep their precision are the source's own, bit by bit.
    `begins` is called with each phase: import, load, calibrate, freeze, export. UserError for an
    option that this Quark can't take, a prompt the model can't, or scales missing from Quark's
    output.
    """
    _check(options)
    exported = destination / "exported"
    checkpoint = open_checkpoint(source)
    if options.version == AMDS:
        described = quark_0_9.export(source, exported, options, texts, begins)
        _take_as_it_is(checkpoint, exported, destination)
    else:
        described = _export(checkpoint, exported, options, prompts, begins)
        _take(checkpoint, exported, destination)
    shutil.rmtree(exported)
    refuse_bad_scales(open_checkpoint(destination))
    return described


def _export(
    checkpoint: Checkpoint,
    exported: Path,
    options: QuarkOptions,
    prompts: Sequence[Sequence[int]],
    begins: Callable[[str], None],
) -> dict[str, Any]:
    source = checkpoint.directory
    begins("import")
    import torch

    accelerated = torch.cuda.is_available()
    if not accelerated:
        # Read when Quark is imported: compiling takes longer than everything else on a CPU.
        os.environ["QUARK_DISABLE_COMPILE"] = "1"
        _check_for_a_cpu(options)
    from quark.torch import LLMTemplate, ModelQuantizer, export_safetensors
    from quark.torch.utils.llm import preprocess_for_quantization
    from transformers import AutoModelForCausalLM

    kind = str(checkpoint.config.get("model_type"))
    if kind not in LLMTemplate.list_available():
        raise UserError(f"Quark has no template for {kind}, which {source} is; use another tool")
    begins("load")
    if not accelerated:
        torch.set_num_threads(THREADS)
    dtype = options.data_type or "auto"
    model = AutoModelForCausalLM.from_pretrained(
        source,
        dtype="auto" if dtype == "auto" else getattr(torch, dtype),
        device_map="auto" if accelerated else None,
    ).eval()
    # Of the experts that transformers fuses Quark would quantize none, without a word.
    preprocess_for_quantization(model)
    if options.quant_algo == "autosmoothquant" and model.device.type == "cpu":
        from quark.torch.kernel import mx

        # Its search for scales is the one place where Quark has no MXFP4 for a CPU.
        mx.qdq_mxfp4 = _mxfp4_round_trip
    recipe = LLMTemplate.get(kind).get_config(
        scheme=SCHEMES[options.quant_scheme],
        algorithm=options.quant_algo,
        kv_cache_scheme=options.kv_cache_dtype,
        min_kv_scale=options.min_kv_scale or 0.0,
        exclude_layers=list(options.exclude_layers),
    )
    found = list(samples(prompts, options, model.config))
    reached = Reached(model)
    batches = [torch.tensor([sample], device=model.device) for sample in found]
    begins("calibrate")
    quantizer = ModelQuantizer(recipe)
    model = quantizer.quantize_model(model, batches)
    if options.static:
        reached.refuse_cold(source, partial(_renamed, kind=kind))
    begins("freeze")
    model = quantizer.freeze(model)
    begins("export")
    with torch.no_grad():
        export_safetensors(model, str(exported))
    return {
        "samples": len(found),
        "tokens": sum(map(len, found)),
        **reached.described(),
        "made": "of the dataset's token ids, where AMD's script tokenizes the texts again",
    }


def samples(
    prompts: Sequence[Sequence[int]], options: QuarkOptions, config: Any
) -> Iterator[list[int]]:
    """The samples that Quark measures on: each prompt, or for algorithms, which need equal lengths,
    all prompts joined and cut into pieces of `seq_len`.
    """
    if not prompts or not all(prompts):
        raise UserError("a calibration prompt is empty, or there is none; make the dataset again")
    largest = max(map(max, prompts))
    if largest >= config.vocab_size:
        raise UserError(
            f"the model knows token ids below {config.vocab_size}, the calibration prompts have "
            f"{largest}; use the dataset made for this model"
        )
    length = options.seq_len
    if options.quant_algo is None:
        yield from (list(prompt[:length]) for prompt in prompts)
        return
    joined = [token for prompt in prompts for token in prompt]
    if len(joined) < length:
        raise UserError(
            f"{options.quant_algo} wants samples of {length} tokens, all calibration prompts "
            f"together have {len(joined)}; lower seq_len or raise num_calib_data"
        )
    for start in range(0, len(joined) - length + 1, length):
        yield joined[start : start + length]


def refuse_bad_scales(checkpoint: Checkpoint) -> None:
    """UserError naming the first quantized weight without the scales that config.json declares, the
    first scale that isn't a positive number, and the first expert that calibration never reached:
    Quark gives it an input scale of 1. vLLM loads such a checkpoint silently, generates nonsense
    from the first two and takes an expert's scale for all of its layer.
    """
    static, cached = _declared(checkpoint.config["quantization_config"])
    names = {tensor.name for tensor in checkpoint.tensors}
    for tensor in checkpoint.tensors:
        if not _quantized(tensor):
            continue
        module = tensor.name.removesuffix(".weight")
        wanted: list[tuple[str, ...]] = [(f"{module}.weight_scale",)]
        if static:
            wanted.append((f"{module}.input_scale",))
        if module.endswith(cached):
            short = module.rpartition(".")[2].removesuffix("_proj")
            attention = module.rpartition(".")[0]
            wanted.append((f"{module}.output_scale", f"{attention}.{short}_scale"))
        for scales in wanted:
            if not names & set(scales):
                raise UserError(
                    f"{checkpoint.directory} declares a scale {scales[0]} and has none; "
                    "quantize again, or report it with the log"
                )
    _refuse_odd_scales(checkpoint)


def _declared(settings: Mapping[str, Any]) -> tuple[bool, tuple[str, ...]]:
    """Whether activations have static scales, and the ends of the modules whose outputs have."""
    if settings.get("quant_method") == "fp8":  # vLLM's own form
        cached = ("k_proj", "v_proj") if settings["kv_cache_scheme"] == "static" else ()
        return settings["activation_scheme"] == "static", cached
    layer = settings["global_quant_config"]
    static = bool(layer["input_tensors"]) and not layer["input_tensors"]["is_dynamic"]
    groups = settings["export"]["kv_cache_group"]
    return static, tuple(pattern.lstrip("*") for pattern in groups)


def _refuse_odd_scales(checkpoint: Checkpoint) -> None:
    experts: dict[str, dict[str, float]] = {}
    for tensor in checkpoint.tensors:
        if not tensor.name.endswith("_scale") or (values := floats(tensor)) is None:
            continue
        odd = values[~((values > 0) & np.isfinite(values))]
        if odd.size:
            raise UserError(
                f"{checkpoint.directory}: {tensor.name} is {odd[0]}: no calibration prompt "
                "reached it, or weights were damaged; raise num_calib_data and quantize again"
            )
        if tensor.name.endswith(".input_scale") and _EXPERT.search(tensor.name):
            alike = experts.setdefault(_EXPERT.sub(".experts.*.", tensor.name), {})
            alike[tensor.name] = float(values.max())
    for alike in experts.values():
        reached = [value for value in alike.values() if value != UNREACHED]
        for name, value in alike.items():
            if value == UNREACHED and reached and max(reached) < UNREACHED / 10:
                raise UserError(
                    f"{checkpoint.directory}: {name} is {value:g} and its neighbours' are at most "
                    f"{max(reached):.3g}: no calibration prompt reached this expert; raise "
                    "num_calib_data and quantize again"
                )


def _check(options: QuarkOptions) -> None:
    try:
        installed = importlib.metadata.version("amd-quark")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError("AMD Quark is not installed in this environment; see envs/") from error
    if installed.partition("+")[0] != options.version:
        raise UserError(
            f"AMD Quark {installed} is installed, the options are for {options.version}; fix "
            "envs/compress.lock or the options"
        )
    if options.custom_mode and options.version != AMDS:
        raise UserError(f"Quark {installed} exports no custom_mode {options.custom_mode}")


def _check_for_a_cpu(options: QuarkOptions) -> None:
    if options.quant_scheme == "w_mxfp4_a_mxfp4" and options.data_type != "float32":
        raise UserError(
            "Quark rounds to MXFP4 on a CPU only in float32; set the option data_type=float32"
        )


def _take_as_it_is(source: Checkpoint, exported: Path, destination: Path) -> None:
    """Quark's files as AMD has them, with config.json in both forms. UserError for a weight that
    the source hasn't."""
    known = {tensor.name for tensor in source.tensors}
    for path in sorted(exported.glob("*.safetensors")):
        for tensor in read_shard(path).tensors:
            if tensor.name not in known and not tensor.name.endswith("_scale"):
                raise UserError(
                    f"Quark names a weight {tensor.name}, which {source.directory} has not; use "
                    "another tool"
                )
        shutil.move(path, destination / path.name)
    if (exported / INDEX).exists():
        shutil.move(exported / INDEX, destination / INDEX)
    copy_side_files(source.directory, destination)
    config = json.loads((exported / CONFIG).read_text(encoding="utf-8"))
    # Of the source: transformers 4 keeps what it doesn't know, and writes its own beside it.
    config.pop("dtype", None)
    _write_json(destination / CONFIG, both_forms(config))


def _quantized(tensor: Tensor) -> bool:
    return tensor.name.endswith(".weight") and tensor.dtype in ("F8_E4M3", "U8")


def _take(source: Checkpoint, exported: Path, destination: Path) -> None:
    """Quark's weights and config.json, but unquantized weights in the source's dtype, and all names
    as in the source.

    Quark copies every file of the source's directory and writes fp32 where it loaded fp32.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    originals = {tensor.name: tensor for tensor in source.tensors}
    kind = str(source.config.get("model_type"))
    for path in sorted(exported.glob("*.safetensors")):
        weights = {_renamed(name, kind): weight for name, weight in load_file(path).items()}
        for name, weight in weights.items():
            if name not in originals and not name.endswith("_scale"):
                raise UserError(
                    f"Quark names a weight {name}, which {source.directory} has not: this version "
                    f"doesn't know how it names {kind}; use another tool"
                )
            if name in originals and weight.dtype in (torch.float32, torch.float16, torch.bfloat16):
                with safe_open(originals[name].path, framework="pt") as shard:
                    original = shard.get_tensor(name)
                # Algorithms move scales into norms: those aren't the source's any more.
                kept = torch.equal(original.to(weight.dtype), weight)
                weights[name] = original if kept else weight.to(original.dtype)
        save_file(weights, destination / path.name, metadata={"format": "pt"})
    config = json.loads((exported / CONFIG).read_text(encoding="utf-8"))
    for key in ("dtype", "torch_dtype"):
        config.pop(key, None)
        if key in source.config:
            config[key] = source.config[key]
    declared = config["quantization_config"]
    declared["exclude"] = [_renamed(module, kind) for module in declared["exclude"]]
    _write_json(destination / CONFIG, both_forms(config))
    if (exported / INDEX).exists():
        index = json.loads((exported / INDEX).read_text(encoding="utf-8"))
        where = index["weight_map"]
        index["weight_map"] = {_renamed(name, kind): file for name, file in where.items()}
        _write_json(destination / INDEX, index)
    copy_side_files(source.directory, destination)


def _mxfp4_round_trip(values: Any, scale_calculation_mode: str) -> Any:
    from steps.prepare.checkpoint.formats import mxfp4_round_trip

    if scale_calculation_mode != "even":
        raise UserError(f"MXFP4 scales by {scale_calculation_mode!r} can't be searched on a CPU")
    return mxfp4_round_trip(values)


def _renamed(name: str, kind: str) -> str:
    for loaded, stored in NAMES.get(kind, ()):
        name = name.replace(loaded, stored)
    return name


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
