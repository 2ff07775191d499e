"""Where things lie in the weights of Stable Diffusion XL: MLCommons' layout, or a hub's."""

from pathlib import Path

from steps.base.errors import UserError

PIPELINE, SCHEDULER = "checkpoint_pipe", "checkpoint_scheduler"
"""MLCommons' folders; a download from a hub has neither."""

INDEX, SCHEDULING = "model_index.json", "scheduler_config.json"

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
    return "fp16" if names and all(".fp16" in name for name in names) else None
