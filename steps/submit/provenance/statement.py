"""The in-toto Statement v1 with a SLSA Provenance v1 predicate, as typed values.

Field names are those of https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from steps.base.errors import UserError, explain
from steps.base.record import sha256_file
from steps.base.strict import Strict
from steps.base.untrusted import Damaged, open_regular

PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:reprise:submission:1"


class Resource(Strict):
    """A file, or a value of which only the digest is given.

    Annotations: `kind` (weights, dataset, environment, image, configuration, code, log, host, sbom,
    manifest); for what ran, `host`; for code, `version`, `commit` and whether it was `changed`.
    """

    name: str
    digest: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    @property
    def sha256(self) -> str | None:
        return (self.digest or {}).get("sha256")


class BuildDefinition(Strict):
    buildType: str
    externalParameters: dict[str, Any]
    resolvedDependencies: tuple[Resource, ...]


class Builder(Strict):
    """`version`: name and version of what assembled the statement."""

    id: str
    version: dict[str, str] | None = None


class Metadata(Strict):
    """Times are UTC: of the first start and the last end of a step."""

    invocationId: str
    startedOn: str
    finishedOn: str


class RunDetails(Strict):
    builder: Builder
    metadata: Metadata
    byproducts: tuple[Resource, ...]


class Predicate(Strict):
    buildDefinition: BuildDefinition
    runDetails: RunDetails


class Statement(Strict):
    """Subjects are the files of the tree, below `submission/`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[Resource, ...]
    predicateType: Literal["https://slsa.dev/provenance/v1"]
    predicate: Predicate

    def to_json(self) -> str:
        return self.model_dump_json(indent=1, by_alias=True, exclude_none=True) + "\n"

    def resources(self) -> Iterator[Resource]:
        """Everything with a digest."""
        yield from self.subject
        yield from self.predicate.buildDefinition.resolvedDependencies
        yield from self.predicate.runDetails.byproducts


def read(path: Path) -> Statement:
    """Raises UserError for a file that isn't such a statement."""
    try:
        with open_regular(path) as stream:
            return Statement.model_validate_json(stream.read())
    except (Damaged, OSError) as error:
        raise UserError(f"{path} can't be read: {error}; restore it") from error
    except ValidationError as error:
        raise UserError(f"{path} isn't a statement of Reprise ({explain(error)})") from error


def damage(statement: Statement, files: Mapping[str, Path]) -> list[str]:
    """One phrase per file that is missing or differs; `files` maps names to paths."""
    found = []
    for resource in statement.resources():
        path = files.get(resource.name)
        if path is None or resource.sha256 is None:
            continue
        if not path.is_file():
            found.append(f"{resource.name} is missing")
        elif sha256_file(path) != resource.sha256:
            found.append(f"{resource.name} does not match its sha256 in the statement")
    return found
