"""AMD Quark 0.9, which AMD made its v5.1 weights with, through its API: its wheel has no command.

What AMD's script quantize_quark.py passes on is passed on here, in the same order. Public copies of
it are of versions 0.8 and 0.10.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.config.compression import QuarkOptions
from steps.prepare.checkpoint.config_forms import refuse_misread
from steps.prepare.quantize.experts import Reached

KV_LAYERS = ("*k_proj", "*v_proj")
"""Layers whose outputs are the KV cache."""

DECODER = "model.layers"
ATTENTION = (
    {
        "prev_op": "input_layernorm",
        "layers": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "inp": "self_attn.q_proj",
        "module2inspect": "self_attn",
    },
    {"prev_op": "self_attn.v_proj", "layers": ["self_attn.o_proj"], "inp": "self_attn.o_proj"},
)
MLP = (
    {
        "prev_op": "post_attention_layernorm",
        "layers": ["mlp.gate_proj", "mlp.up_proj"],
        "inp": "mlp.gate_proj",
        "module2inspect": "mlp",
    },
    {"prev_op": "mlp.up_proj", "layers": ["mlp.down_proj"], "inp": "mlp.down_proj"},
)
SCALED: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "llama": (*ATTENTION, *MLP),
    "mixtral": ATTENTION,
}
"""By type of model: the groups of layers that AutoSmoothQuant scales, those of AMD's files."""

ROUNDED = (
    *("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.o_proj"),
    *("mlp.up_proj", "mlp.gate_proj", "mlp.down_proj"),
)
"""Layers whose rounding GPTQ chooses, in the order of AMD's file for Llama."""


def export(
    source: Path,
    exported: Path,
    options: QuarkOptions,
    texts: Sequence[str],
    begins: Callable[[str], None],
) -> dict[str, Any]:
    """Write Quark's checkpoint to the directory `exported`; returns what it was calibrated on.

    `texts` are prompts. UserError for a type of model that AMD has no recipe for, weights that this
    transformers would misread, or prompts that aren't text.
    """
    begins("import")
    with _compiled(exported, options):
        import torch
        import transformers
        from quark.torch import ModelExporter, ModelQuantizer
        from quark.torch.export.config.config import ExporterConfig, JsonExporterConfig

        refuse_misread(source, transformers.__version__)
        begins("load")
        model = _load(source, options)
        kind = str(model.config.model_type)
        if kind not in SCALED:
            raise UserError(f"AMD has no recipe for {kind}, which {source} is; use another tool")
        batches, described = _batches(source, options, texts, str(model.device))
        recipe = _recipe(options, kind)
        reached = Reached(model)
        begins("calibrate")
        quantizer = ModelQuantizer(recipe)
        quantized = quantizer.quantize_model(model, batches)
        if options.static:
            reached.refuse_cold(source)
        begins("freeze")
        quantized = quantizer.freeze(quantized)
        begins("export")
        form = JsonExporterConfig(
            kv_cache_group=list(KV_LAYERS), min_kv_scale=options.min_kv_scale or 0.0
        )
        with torch.no_grad():
            ModelExporter(ExporterConfig(form), exported).export_safetensors_model(
                quantized, quant_config=recipe, custom_mode=options.custom_mode or "quark"
            )
    return {**described, **reached.described()}


@contextmanager
def _compiled(exported: Path, options: QuarkOptions) -> Iterator[None]:
    """Quark compiles kernels while it is imported, below a directory that its versions share: one
    that was killed leaves a lock there, for which every later import waits for ever."""
    import torch

    if not torch.cuda.is_available() and options.quant_scheme == "w_fp8_a_fp8":
        # FP8 needs none of them on a CPU, and they take longer than everything else.
        os.environ["CXX"] = "/bin/false"
    folder = tempfile.mkdtemp(dir=exported.parent, prefix=".kernels-")
    os.environ["TORCH_EXTENSIONS_DIR"] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _load(source: Path, options: QuarkOptions) -> Any:
    """On accelerators spread over all that are visible, as AMD's --multi_gpu does."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = options.data_type or "auto"
    return AutoModelForCausalLM.from_pretrained(
        source,
        torch_dtype="auto" if dtype == "auto" else getattr(torch, dtype),
        device_map="auto" if torch.cuda.is_available() else None,
        attn_implementation=options.model_attn_implementation or "eager",
    ).eval()


def _batches(
    source: Path, options: QuarkOptions, texts: Sequence[str], device: str
) -> tuple[Any, dict[str, Any]]:
    """As AMD's calib.py makes them: texts are tokenized again, whatever begins them already, cut to
    `seq_len` and padded on the left to the longest; what is padded is calibrated on too."""
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer

    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise UserError("a calibration prompt is no text, or there is none; make the dataset again")
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", local_files_only=True)
    if tokenizer.pad_token != "<unk>":
        tokenizer.pad_token = tokenizer.eos_token
    encoded = tokenizer(
        list(texts), return_tensors="pt", padding=True, truncation=True, max_length=options.seq_len
    )["input_ids"].to(device)
    size = options.batch_size or 1
    if len(encoded) < size:
        raise UserError(
            f"{len(encoded)} calibration prompts don't fill one batch of {size}; lower batch_size, "
            "or calibrate on more"
        )
    loader = DataLoader([{"input_ids": row} for row in encoded], batch_size=size, drop_last=True)
    count, length = encoded.shape
    return loader, {
        "samples": count // size * size,
        "tokens_each": length,
        "made": "by tokenizing the texts again, as AMD's script does",
    }


def _recipe(options: QuarkOptions, kind: str) -> Any:
    """The Config of quark.torch.quantization."""
    from quark.torch.quantization.config.config import (
        Config,
        FP8E4M3PerTensorSpec,
        OCP_MXFP4Spec,
        QuantizationConfig,
    )

    fp8 = FP8E4M3PerTensorSpec(observer_method="min_max", is_dynamic=False).to_quantization_spec()
    if options.quant_scheme == "w_fp8_a_fp8":
        weight = inputs = fp8
    else:
        weight = OCP_MXFP4Spec(ch_axis=-1, is_dynamic=False).to_quantization_spec()
        inputs = OCP_MXFP4Spec(ch_axis=-1, is_dynamic=True).to_quantization_spec()
    cached = {
        name: QuantizationConfig(weight=weight, input_tensors=inputs, output_tensors=fp8)
        for name in KV_LAYERS
    }
    return Config(
        global_quant_config=QuantizationConfig(weight=weight, input_tensors=inputs),
        layer_quant_config=cached,
        kv_cache_quant_config=dict(cached),
        exclude=list(options.exclude_layers),
        algo_config=_algorithm(options, kind),
    )


def _algorithm(options: QuarkOptions, kind: str) -> Any:
    from quark.torch.quantization.config.config import AutoSmoothQuantConfig, GPTQConfig

    if options.quant_algo == "autosmoothquant":
        return AutoSmoothQuantConfig(
            scaling_layers=[dict(group) for group in SCALED[kind]],
            model_decoder_layers=DECODER,
            compute_scale_loss="MAE",
        )
    if options.quant_algo == "gptq":
        if kind != "llama":
            raise UserError(f"AMD has no recipe of GPTQ for {kind}; choose another quant_algo")
        return GPTQConfig(inside_layer_modules=list(ROUNDED), model_decoder_layers=DECODER)
    return None
