"""The published files of a dataset, as they are."""

from steps.config.artifacts import DatasetFilesConfig
from steps.plan.rates import PLACE
from steps.plan.spec import Config, Cost, Facts, StepSpec, short
from steps.plan.specs.shared import mirrored


def brings(config: Config) -> str | None:
    if config["fetch"]["offline"]:
        return (
            f"fetch.offline is set, and {config['name']}'s dataset comes from a network; set "
            "benchmark.dataset.path to a directory that has it"
        )
    return None


def cost(key: str, config: Config, facts: Facts) -> Cost:
    if mirrored(config):
        return short(key, config, facts)
    size = facts.rates.dataset_gb
    seconds = facts.rates.download_s(size) + facts.rates.disk_s(size)
    return Cost(seconds, size, basis=f"{size:g} GB each, assumed ({PLACE})", rough=True)


SPEC = StepSpec(
    module="steps.prepare.dataset_files",
    says="files of dataset",
    config=DatasetFilesConfig,
    stage="artifacts",
    environment="driver",
    place="here",
    axes=("benchmark",),
    needs={"mirror": "mirror"},
    brings=brings,
    cost=cost,
)
