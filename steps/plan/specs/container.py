"""An image that takes the place of a native environment."""

from steps.config.artifacts import PlannedImage
from steps.config.container import ImageConfig
from steps.plan.rates import PLACE
from steps.plan.spec import UNKNOWN, Config, Cost, Facts, StepSpec
from steps.plan.specs.shared import ENVIRONMENTS, environment_cost

OLDEST_PYTHON = 10
"""Minor version of Python 3 that steps are written for: that of AMD's images on ROCm 7.0."""


def limitation(config: Config) -> str | None:
    if "stack" not in config:
        return f"this version has no recipe of image {config['name']} on {config['base']}"
    version = config["python"]
    if int(version.removesuffix("t").split(".")[1]) < OLDEST_PYTHON:
        return (
            f"image {config['name']} brings Python {version}, and steps run in 3.{OLDEST_PYTHON} "
            "or later"
        )
    return None


def cost(key: str, config: Config, facts: Facts) -> Cost:
    """What is compiled on a base that was never built here takes at most the limit of its build."""
    if "stack" not in config:
        return UNKNOWN
    if config["lock"] in ENVIRONMENTS:
        return environment_cost(config["lock"], config, facts)
    size, build_s = facts.rates.image_gb, config["build_limit_s"]
    basis = f"an image of {size:g} GB ({PLACE}) and at most its build_limit_s"
    return Cost(facts.rates.download_s(size) + build_s, size, basis=basis, rough=True)


SPEC = StepSpec(
    module="steps.machine.container",
    says="container image",
    config=ImageConfig,
    planned=PlannedImage,
    stage="artifacts",
    environment="driver",
    place="here",
    axes=("system",),
    limitation=limitation,
    cost=cost,
)
