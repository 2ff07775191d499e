"""A CycloneDX bill of materials of an environment, from its lock.

By cyclonedx-python-lib, which its standard's authors keep. It is loaded where a bill is written.
"""

import uuid
from datetime import datetime
from pathlib import Path

from steps.base.locks import packages
from steps.base.record import sha256_file

NAMESPACE = uuid.UUID("0d1f2a52-6a0e-5a45-9c1b-5a5a0c6f3c51")
"""Of serial numbers: the same lock has the same."""


def bill(lock: Path, made: datetime) -> str:
    """JSON of version 1.6; `made`: when the environment was. UserError for a line without ==."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    digest = sha256_file(lock)
    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, digest))
    bom.metadata.timestamp = made
    bom.metadata.component = root = Component(
        name=f"reprise-{lock.stem}",
        version=digest[:12],
        type=ComponentType.APPLICATION,
        bom_ref=lock.name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    components = [
        Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}=={version}",
            purl=PackageURL("pypi", name=name, version=version),
        )
        for name, version in packages(lock).items()
    ]
    for component in components:
        bom.components.add(component)
    bom.register_dependency(root, components)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"
