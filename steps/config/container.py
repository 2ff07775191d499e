"""What an image is made of."""

from typing import Annotated

from pydantic import Field

from steps.base.strict import Name, Positive, Strict
from steps.config.runtime import EngineAddress

Argument = Annotated[str, Field(pattern=r"^[A-Z][A-Z_]*$")]
Value = Annotated[str, Field(pattern=r"^[\w.:/+ -]*$")]
"""A value of words that a Dockerfile's shell may split and needn't quote."""


class ImageConfig(Strict):
    """An image by `containers/<stack>/Dockerfile`: the packages of `envs/<lock>.lock` on a base.

    `python` is the version that steps run in there. `arguments` are the Dockerfile's own. `first`
    names the packages of the lock that are installed in a layer of their own, below the others:
    large ones that seldom change. `probes` are imported to prove the image. A `base` without a
    digest may change under its name; the image is then built again.
    """

    name: Name
    stack: Name
    base: str
    python: Annotated[str, Field(pattern=r"^3\.\d+t?$")]
    arguments: dict[Argument, Value]
    lock: Name
    first: tuple[str, ...]
    probes: tuple[str, ...]
    build_limit_s: Positive
    host: EngineAddress
