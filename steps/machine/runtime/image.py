"""An image that steps run in, as what starts its containers has to know it."""

from steps.base.record import Manifest
from steps.base.strict import Strict


class Image(Strict):
    """`identity`: its id in a container engine. `python`: the path of the Python in it. `made`: the
    folder of the step that made it, on the machine that did."""

    identity: str
    python: str
    made: str

    @classmethod
    def of(cls, manifest: Manifest) -> "Image":
        return cls(
            identity=str(manifest.result["image"]),
            python=str(manifest.result["python"]),
            made=str(manifest.directory),
        )
