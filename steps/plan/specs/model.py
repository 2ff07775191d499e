"""The source weights."""

from steps.config.artifacts import ModelConfig
from steps.plan.spec import SHORT_S, Config, Cost, StepSpec


def limitation(config: Config) -> str | None:
    source, repository = config.get("source"), config.get("repository")
    if "embedded" in config or source == "local":
        return None
    if config["fetch"]["offline"]:
        return f"fetch.offline is set, and {repository} comes from a network"
    if source == "huggingface" and config["revision"] is None:
        return f"no revision of {repository} is pinned; set benchmark.model.revision to a commit"
    if source == "mlcommons" and config["uri"] is None:
        return f"the .uri of {repository} isn't known; set benchmark.model.uri"
    return None


def cost(key: str, config: Config, samples: int) -> Cost:
    """How long a download takes isn't known."""
    return Cost(SHORT_S if "embedded" in config else None, 0.01)


SPEC = StepSpec(
    module="steps.prepare.model",
    says="weights",
    config=ModelConfig,
    stage="artifacts",
    environment="driver",
    place="here",
    axes=("benchmark",),
    sources=("steps/prepare/fetch/*.py", "steps/config/fetch.py"),
    brings=limitation,
    cost=cost,
)
