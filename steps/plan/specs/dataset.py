"""The prompts of a benchmark."""

from steps.config.artifacts import DatasetConfig, RemoteDatasetConfig
from steps.plan.spec import Config, StepSpec


def limitation(config: Config) -> str | None:
    recipe = config.get("recipe")
    return None if recipe == "rehearsal" else f"this version has no recipe for {recipe}"


SPEC = StepSpec(
    module="steps.prepare.dataset",
    says="dataset",
    config=DatasetConfig,
    planned=RemoteDatasetConfig,
    stage="artifacts",
    environment="analysis",
    place="here",
    axes=("benchmark",),
    needs={"model": "model", "environment": "environment/analysis"},
    limitation=limitation,
)
