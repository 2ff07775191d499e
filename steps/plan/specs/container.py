"""An image that takes the place of a native environment."""

from steps.config.artifacts import PlannedImage
from steps.config.container import ImageConfig
from steps.plan.spec import UNKNOWN, Config, Cost, StepSpec
from steps.plan.specs.shared import ENGINE_OPTIONS, ENVIRONMENTS, environment_cost

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


def cost(key: str, config: Config, samples: int) -> Cost:
    if config.get("lock") not in ENVIRONMENTS:
        return UNKNOWN
    return environment_cost(config["lock"], config, samples)


SPEC = StepSpec(
    module="steps.machine.container",
    says="container image",
    config=ImageConfig,
    planned=PlannedImage,
    stage="artifacts",
    environment="driver",
    place="here",
    axes=("system",),
    sources=(
        "steps/machine/container/*.py",
        "steps/machine/runtime/*.py",
        "steps/config/container.py",
        "steps/config/runtime.py",
        *ENGINE_OPTIONS,
    ),
    limitation=limitation,
    cost=cost,
)
