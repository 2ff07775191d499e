"""What a step leaves as its result, typed, and read back through its type.

The type of a step's result stands beside the step's configuration; nothing reads a manifest's
result in any other way.
"""

from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError

from steps.base.errors import UserError, explain
from steps.base.record import Manifest, canonical_json
from steps.base.strict import Strict


class Result(Strict):
    """Keys that this version doesn't know are another version's, and no obstacle; one that an
    earlier version didn't write has a default."""

    model_config = ConfigDict(extra="ignore")

    def dumped(self) -> dict[str, Any]:
        """For the manifest: what the step said, and no default that it left out."""
        return self.model_dump(mode="json", exclude_unset=True)


Kind = TypeVar("Kind", bound=Result)


def result_of(manifest: Manifest, kind: type[Kind]) -> Kind:
    """The result of a finished step. Raises UserError for one that isn't of this kind."""
    try:
        return kind.model_validate_json(canonical_json(manifest.result))
    except ValidationError as error:
        raise UserError(
            f"{manifest.directory} holds a result of {manifest.step} that this version of Reprise "
            f"can't read ({explain(error)}); use the version that made it, or delete it and run "
            "./reproduce, which makes it again"
        ) from error
