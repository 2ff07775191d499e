"""The source weights."""

from steps.config.artifacts import ModelConfig
from steps.plan.rates import PLACE
from steps.plan.spec import SHORT_S, Config, Cost, Facts, StepSpec
from steps.plan.specs.shared import mirrored


def brings(config: Config) -> str | None:
    source, repository = config.get("source"), config.get("repository")
    if "embedded" in config or source == "local":
        return None
    cached = source == "huggingface" and config["fetch"].get("hub_cache") is not None
    if config["fetch"]["offline"] and not cached:
        return f"fetch.offline is set, and {repository} comes from a network"
    if source == "mlcommons" and config["uri"] is None:
        return f"the .uri of {repository} isn't known; set benchmark.model.uri"
    return None


def cost(key: str, config: Config, facts: Facts) -> Cost:
    if "embedded" in config or mirrored(config):
        return Cost(SHORT_S, 0.01)
    size = facts.weights_gb
    if size is None:
        return Cost(None, 0.0, basis=f"{config['name']}: its size isn't in conf/capacity.yaml")
    words = f"{facts.billions:g}e9 weights of {facts.weight_bytes:g} bytes"
    if config["source"] == "huggingface" and config["revision"] is None:
        words += ", main as it is at the first run,"
    if config["source"] == "local":
        return Cost(facts.rates.disk_s(size), 0.01, basis=f"{words}, read and linked", rough=True)
    seconds = facts.rates.download_s(size) + facts.rates.disk_s(size)
    rate = f"{facts.rates.download_mb_s:g} MB/s ({PLACE})"
    return Cost(seconds, size, basis=f"{config['name']}: {words} at {rate}", rough=True)


SPEC = StepSpec(
    module="steps.prepare.model",
    says="weights",
    config=ModelConfig,
    stage="artifacts",
    environment="driver",
    place="here",
    axes=("benchmark",),
    brings=brings,
    cost=cost,
)
