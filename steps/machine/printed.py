"""JSON that a program prints with somebody else's Python, which may print more than that."""

import contextlib
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from steps.base.errors import UserError

Kind = TypeVar("Kind")


def last(printed: str, kind: TypeAdapter[Kind], who: str, what: str) -> Kind:
    """The last line that is JSON of this kind. Raises UserError if there is none: `who` doesn't say
    `what`.
    """
    lines = printed.strip().splitlines()
    for line in reversed(lines):
        with contextlib.suppress(ValidationError, RecursionError):
            return kind.validate_json(line)
    raise UserError(
        f"{who} doesn't say {what}: it printed {(lines or ['nothing'])[-1]!r:.200}; see what its "
        "Python runs when it starts"
    )
