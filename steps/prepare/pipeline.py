"""Where things lie in the weights of Stable Diffusion XL: MLCommons' layout, or a hub's."""

from pathlib import Path

from steps.base.errors import UserError

PIPELINE, SCHEDULER = "checkpoint_pipe", "checkpoint_scheduler"
"""MLCommons' folders; a download from a hub has neither."""

INDEX, SCHEDULING = "model_index.json", "scheduler_config.json"

HALF = ".fp16"
"""What names of weights in half precision have, where others may lie beside them."""

NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae")

TOKENIZERS = ("tokenizer", "tokenizer_2")
"""The two text encoders' own, in the order in which their hidden states lie side by side."""


def home(weights: Path) -> Path:
    """The folder of diffusers' pipeline. Raises UserError if there is none."""
    for found in (weights / PIPELINE, *sorted(weights.glob(f"*/{PIPELINE}")), weights):
        if (found / INDEX).is_file():
            return found
    raise UserError(
        f"{weights} has no {INDEX}, so no pipeline of diffusers; give MLCommons' fp16 or fp32 "
        "checkpoint of Stable Diffusion XL"
    )


def scheduling(pipeline: Path) -> Path:
    """The folder of its scheduler, which MLCommons keeps beside the pipeline."""
    beside = pipeline.parent / SCHEDULER
    for folder in (beside / "scheduler", beside, pipeline / "scheduler"):
        if (folder / SCHEDULING).is_file():
            return folder
    raise UserError(
        f"{pipeline} has no {SCHEDULING}, and {beside} hasn't either: a pipeline needs its "
        "scheduler; give the whole checkpoint"
    )


def variant(pipeline: Path) -> str | None:
    """The ending of the names of weights, where every name has one."""
    names = [path.name for path in (pipeline / "unet").glob("*.safetensors")]
    return HALF.removeprefix(".") if names and all(HALF in name for name in names) else None


def files(pipeline: Path, network: str) -> list[Path]:
    """The weights of a network that diffusers reads: those of `variant`."""
    half = variant(pipeline) is not None
    found = sorted((pipeline / network).glob("*.safetensors"))
    return [path for path in found if (HALF in path.name) == half] or found
