"""The results of the steps that make what others run in: environments and images."""

from pydantic import Field

from steps.config.results import Result


class EnvironmentResult(Result):
    """`python`: version of the Python that it was made with."""

    name: str
    python: str = "of an unknown version"


class ImageResult(Result):
    """`image`: its id, for a tag can move. `base`: the name of what it is built on, with a digest;
    older results lack it. `layers`: digests. `python`: the path of the one that steps run in.
    """

    image: str
    python: str
    labels: dict[str, str] = Field(default_factory=dict)
    base: str | None = None
    layers: tuple[str, ...] = ()
