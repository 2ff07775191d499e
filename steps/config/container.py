"""What an image is made of."""

from typing import Annotated

from pydantic import Field

from steps.base.strict import Name, Positive, Strict
from steps.config.runtime import EngineAddress

Argument = Annotated[str, Field(pattern=r"^[A-Z][A-Z_]*$")]
Value = Annotated[str, Field(pattern=r"^[\w.:/+ -]*$")]
"""A value of words that a Dockerfile's shell may split and needn't quote."""


Source = Annotated[str, Field(pattern=r"^(https|file)://[\w./@:-]+$")]
Inside = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$")]
"""A path below a checkout."""


class BaseImage(Strict):
    """One of the images that lead to a base. From the second on, the one before it is its
    BASE_IMAGE.

    `dockerfile`: its path in the checkout of `source`. `arguments`: its build arguments.
    """

    dockerfile: Inside
    arguments: dict[Argument, Value]


class Fallback(Strict):
    """How a base is made that can't be pulled any more.

    `source`: a git repository. `revision`: a commit of it. `images`: built one on the other; the
    last one is the base. `edits`: words that are replaced before, by file of the checkout.
    `build_limit_s`: how long all of them may take.
    """

    source: Source
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    images: Annotated[tuple[BaseImage, ...], Field(min_length=1)]
    edits: dict[Inside, dict[str, str]] = Field(default_factory=dict)
    build_limit_s: Positive = 6 * 3600


class ReadyMade(Strict):
    """An image that somebody published with everything in it but the packages of our lock.

    `base`: its name. `arguments`: of our Dockerfile, in the place of those of the recipe.
    """

    base: str
    arguments: dict[Argument, Value]


class ImageConfig(Strict):
    """An image by `containers/<stack>/Dockerfile`: the packages of `envs/<lock>.lock` on a base.

    `name`: what the image is called, below `reprise/`. `stack`: the folder of `containers/` with
    its Dockerfile. `base`: the image that it is built on; without a digest it may change under its
    name, and the image is then built again. `python`: the version that steps run in there.
    `arguments`: the Dockerfile's own. `lock`: the lock of `envs/` that is installed. `first`: the
    packages of the lock that are installed in a layer of their own, below the others: large ones
    that seldom change. `probes`: modules that are imported to prove the image. `build_limit_s`: how
    long a build may take. `host`: the container engine that builds and keeps it. `ready`: what is
    tried before `base`. `fallback`: how the base is made where it can't be pulled; null: that is an
    error. `notes`: what a reader of results has to know of it; they stand on the page.
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
    ready: ReadyMade | None = None
    fallback: Fallback | None = None
    notes: tuple[str, ...] = ()
