"""The results of the steps that fetch and write prompts."""

from steps.base.strict import Positive
from steps.config.results import Result


class FetchedFile(Result):
    """`file`: its name in the step's directory."""

    file: str


class DatasetFilesResult(Result):
    """What was fetched of a dataset."""

    evaluation: FetchedFile
    calibration: FetchedFile


class PromptsResult(Result):
    """A table of prompts. `file` and digests: of what it was read from, if it wasn't generated."""

    samples: Positive
    input_tokens_mean: float
    output_tokens_mean: float | None = None
    input_tokens_max: Positive | None = None
    file: str | None = None
    md5: str | None = None
    sha256: str | None = None


class DatasetResult(Result):
    """`official`: both files are MLCommons' own."""

    evaluation: PromptsResult
    calibration: PromptsResult
    official: bool = False
