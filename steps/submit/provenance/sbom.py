"""A CycloneDX bill of materials of an environment, from its lock.

By cyclonedx-python-lib, which the standard's authors maintain; imported only when a bill is
written.
"""

import uuid
from datetime import datetime
from pathlib import Path

from steps.base.errors import UserError
from steps.base.locks import Entry, entries
from steps.base.record import sha256_file

NAMESPACE = uuid.UUID("0d1f2a52-6a0e-5a45-9c1b-5a5a0c6f3c51")
"""Namespace of serial numbers: the same lock has the same number."""


def bill(lock: Path, made: datetime) -> str:
    """JSON of version 1.6; `made`: when the environment was made. UserError for a line without ==.

    A package has the digests of all files that the lock allows: the one that was installed is among
    them, because the installer takes no other. UserError for a package without one.
    """
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
            name=entry.name,
            version=entry.version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{entry.name}=={entry.version}",
            purl=PackageURL("pypi", name=entry.name, version=entry.version),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=d) for d in _digests(entry, lock)],
        )
        for entry in entries(lock)
        if entry.name
    ]
    for component in components:
        bom.components.add(component)
    bom.register_dependency(root, components)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _digests(entry: Entry, lock: Path) -> tuple[str, ...]:
    if not entry.digests:
        raise UserError(f"{lock}: {entry.name}=={entry.version} has no sha256; run make locks")
    return entry.digests
