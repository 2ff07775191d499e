"""RULER's sets to fine-tune on."""

from collections.abc import Mapping

from steps.config.compression import TrainingSetsConfig
from steps.plan.rates import PLACE
from steps.plan.spec import Config, Cost, Facts, StepSpec


def brings(config: Config) -> str | None:
    """Offline it needs the sets, or all of a clone, a haystack and NLTK's data."""
    if config["directory"] is not None or not config["offline"]:
        return None
    if config["haystack"]["path"] is None or config["nltk_data"] is None:
        return (
            "fetch.offline is set, and RULER downloads what it makes training sets of; set "
            "compression.training_sets.directory to sets that are there, with their digests"
        )
    return None


def programs(config: Config) -> Mapping[str, str]:
    if config["directory"] is not None:
        return {}
    return {"git": "RULER is fetched by git (apt-get install git)"}


def cost(key: str, config: Config, facts: Facts) -> Cost:
    tokens = len(config["needles"]) * config["samples"] * sum(config["lengths"])
    seconds = tokens / facts.rates.tokenized_per_s / config["processes"]
    basis = (
        f"{tokens:,} tokens, twice each, at {facts.rates.tokenized_per_s:g} a second and process "
        f"({PLACE})"
    )
    return Cost(2 * seconds, 10 * tokens / 1e9, basis=basis, rough=True)


SPEC = StepSpec(
    module="steps.prepare.training_sets",
    says="training sets",
    config=TrainingSetsConfig,
    stage="artifacts",
    environment="generator",
    place="here",
    axes=("benchmark", "compression"),
    needs={"model": "model", "environment": "environment/generator"},
    brings=brings,
    programs=programs,
    cost=cost,
)
