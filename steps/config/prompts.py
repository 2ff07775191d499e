"""The results of the steps that fetch and write prompts."""

from pydantic import Field

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


class CaptionsPart(Result):
    """`longest_tokens`: of the longest caption, by the encoder that takes the most for it."""

    samples: Positive
    longest_tokens: Positive


class Digests(Result):
    md5: str
    sha256: str


class CaptionsResult(Result):
    """`files`: digests of MLCommons' files that it was made from, by their names."""

    evaluation: CaptionsPart
    calibration: CaptionsPart
    files: dict[str, Digests] = Field(default_factory=dict)
