"""The result of the step that describes a system."""

from typing import Literal

from steps.config.results import Result


class DescribedField(Result):
    """A field's value and where it comes from; `probed`: the probed value that was overruled."""

    value: str
    origin: Literal["probed", "configured", "missing"]
    probed: str | None = None


class DescribeResult(Result):
    """Where each field of the description comes from."""

    fields: dict[str, DescribedField]
