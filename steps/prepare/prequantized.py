"""Whether weights that somebody else quantized are what the plan takes them for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.config.artifacts import HubModel
from steps.prepare.checkpoint.layout import CONFIG, open_checkpoint
from steps.prepare.fetch.download import file_digest

DTYPES = {"fp8_e4m3": "fp8", "fp4": "mxfp4"}
"""Formats by the name that AMD Quark gives to the dtype of weights."""


def check(model: HubModel, directory: Path) -> None:
    """Raises UserError for another format than `model.format`, source weights included, and for
    another first file than the one whose md5 is published."""
    checkpoint = open_checkpoint(directory) if model.format is not None else None
    if checkpoint is not None:
        found = format_of(checkpoint.config)
        if found != model.format:
            raise UserError(
                f"{model.repository} has weights in {found or 'no format that is known'}, and the "
                f"plan takes {model.format}: see its {CONFIG}; choose that precision, or correct "
                "benchmark.prequantized"
            )
    if model.first_shard_md5 is None:
        return
    first = min(directory.glob("*.safetensors"), default=None)
    digest = None if first is None else file_digest(first, "md5")
    if digest != model.first_shard_md5:
        name = "no safetensors" if first is None else first.name
        raise UserError(
            f"{model.repository} at {model.revision} isn't what AMD ran: the md5 of {name} is "
            f"{digest}, not {model.first_shard_md5}; set benchmark.model.revision to an earlier "
            "commit"
        )


def format_of(config: Mapping[str, Any]) -> str | None:
    """ "fp8", "mxfp4", "source" for weights that aren't quantized, or None for what isn't known."""
    declared = config.get("quantization_config")
    if not declared:
        return "source"
    method = declared.get("quant_method")
    if method == "fp8":
        return "fp8"
    if method != "quark":
        return None
    weight = (declared.get("global_quant_config") or {}).get("weight") or {}
    return DTYPES.get(str(weight.get("dtype")))
