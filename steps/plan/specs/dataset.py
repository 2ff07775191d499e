"""The prompts of a benchmark."""

from typing import get_args

from steps.config.artifacts import DatasetConfig, GeneratedRecipe, RemoteDatasetConfig
from steps.plan.rates import PLACE
from steps.plan.spec import UNKNOWN, Config, Cost, Facts, StepSpec, short
from steps.plan.specs.shared import mirrored

READY = ("open-orca", "mixtral-15k", "llama3.1-405b", "cnn-dailymail")
"""Recipes of steps/prepare/ready.py."""

GENERATED = get_args(GeneratedRecipe)

CAPTIONS = "coco-2014"
"""The recipe of steps/prepare/captions.py."""

UNREAD = {
    "gpt-oss-120b": "MLCommons' parquet files aren't read, and most samples for accuracy are "
    "programs for LiveCodeBench's tests, which aren't in them",
}
"""Why others have no recipe, where it is known."""


def limitation(config: Config) -> str | None:
    recipe = config.get("recipe")
    if recipe in (*GENERATED, *READY, CAPTIONS):
        return None
    why = f": {UNREAD[recipe]}" if recipe in UNREAD else ""
    return f"this version has no recipe for {recipe}{why}"


def brings(config: Config) -> str | None:
    if config.get("recipe") != CAPTIONS or config["path"] is not None:
        return None
    return (
        f"{', '.join(config['files'])} come from text_to_image/ of a checkout of "
        "mlcommons/inference: set benchmark.dataset.path to it"
    )


def cost(key: str, config: Config, facts: Facts) -> Cost:
    if config["recipe"] in (*GENERATED, CAPTIONS) or mirrored(config):
        return short(key, config, facts)
    if config["recipe"] not in READY:
        return UNKNOWN
    size = facts.rates.dataset_gb
    basis = f"{size:g} GB each, assumed ({PLACE})"
    return Cost(facts.rates.disk_s(2 * size) + UNPICKLED_S, size, basis=basis, rough=True)


UNPICKLED_S = 60.0
"""Reading and checking up to 80 million token ids, assumed."""


SPEC = StepSpec(
    module="steps.prepare.dataset",
    says="dataset",
    config=DatasetConfig,
    planned=RemoteDatasetConfig,
    stage="artifacts",
    environment="analysis",
    place="here",
    axes=("benchmark",),
    needs={"model": "model", "files": "dataset_files", "environment": "environment/analysis"},
    limitation=limitation,
    brings=brings,
    cost=cost,
)
