"""An image that steps run in, as what starts its containers has to know it."""

from steps.base.record import Manifest
from steps.base.strict import Strict
from steps.config.environments import ImageResult
from steps.config.results import result_of


class Image(Strict):
    """`identity`: its id in a container engine. `python`: the path of the Python in it. `made`: the
    folder of the step that made it, on the machine that did."""

    identity: str
    python: str
    made: str

    @classmethod
    def of(cls, manifest: Manifest) -> "Image":
        known = result_of(manifest, ImageResult)
        return cls(identity=known.image, python=known.python, made=str(manifest.directory))
