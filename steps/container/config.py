"""What an image is made of."""

from steps.runtime.config import EngineAddress
from steps.strict import Name, Positive, Strict


class ImageConfig(Strict):
    """An image by `containers/<stack>/Dockerfile`: the packages of `envs/<lock>.lock` on a base.

    `first` names the packages of the lock that are installed in a layer of their own, below the
    others: large ones that seldom change. `probes` are imported to prove the image. A `base`
    without a digest may change under its name; the image is then built again.
    """

    name: Name
    stack: Name
    base: str
    lock: Name
    first: tuple[str, ...]
    probes: tuple[str, ...]
    build_limit_s: Positive
    host: EngineAddress
