"""How the nodes of a cluster find an image."""

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config.environments import ImageResult
from steps.config.results import result_of
from steps.config.runtime import EngineAddress
from steps.machine.container.carried import LABEL
from steps.machine.runtime.host import PYTHON, connected, image_id
from steps.schedule.kubernetes.pods import Image

PUSH_LIMIT_S = 600
"""How long a registry may be silent."""


def planned(name: str, registry: str | None) -> Image:
    """An image that isn't built yet."""
    return Image(f"{registry or 'reprise'}/{name}:not-built-yet", PYTHON, registry is not None)


def of_nodes(image: Manifest) -> Image:
    """An image that the nodes have."""
    known = result_of(image, ImageResult)
    if LABEL not in known.labels:
        raise UserError(
            f"{image.directory} doesn't say what its image was built from; delete it and run "
            "again, which builds it"
        )
    return Image(f"reprise/{image.config['name']}:{known.labels[LABEL][:12]}", known.python, False)


def found(image: Manifest, engine: EngineAddress, registry: str | None) -> Image:
    """Push it to the registry and use its digest there, which no other push can move; without a
    registry, use its local name, which must exist on the nodes. Raises UserError if the image is no
    longer here or the registry refuses it.
    """
    if registry is None:
        return of_nodes(image)
    name, known = str(image.config["name"]), result_of(image, ImageResult)
    identity = known.image
    with connected(engine, PUSH_LIMIT_S) as client:
        if image_id(client, identity) is None:
            raise UserError(
                f"image {identity:.19} is no longer in {engine.engine}; delete {image.directory} "
                "and run again, which builds it"
            )
        repository, tag = f"{registry}/{name}", identity.removeprefix("sha256:")[:12]
        client.images.get(identity).tag(repository, tag)
        digest = None
        for event in client.api.push(repository, tag, stream=True, decode=True):
            if "error" in event:
                raise UserError(
                    f"image {name} can't be pushed to {repository} ({event['error']:.200}); log in "
                    f"there ({engine.engine} login), or fix scheduler.registry"
                )
            digest = event.get("aux", {}).get("Digest", digest)
        if digest is None:
            digests = client.images.get(identity).attrs["RepoDigests"]
            digest = next(d.partition("@")[2] for d in digests if d.startswith(f"{repository}@"))
    return Image(f"{repository}@{digest}", known.python, True)
