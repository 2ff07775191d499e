"""Configuration of the steps that make what runs need: environments, images, weights, prompts,
the description of the system."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, RootModel, Tag, model_validator
from typing_extensions import Self

from steps.base.strict import Name, Positive, Strict
from steps.config.compression import ContainerConfig
from steps.config.container import ImageConfig
from steps.config.fetch import Commit, FetchSettings
from steps.mlperf.rounds import COUNTS, DIVISIONS, MAY_BE_EMPTY, STATUSES, SYSTEM_TYPES


class EnvironmentConfig(Strict):
    """A native environment made from `envs/<name>.lock`; `probes` are imported to prove it."""

    name: Name
    probes: tuple[str, ...]


class EmbeddedModel(Strict):
    """Source weights. `embedded` is a directory of the repository that carries a manifest."""

    name: Name
    embedded: str


class HubModel(Strict):
    """Source weights on a Hugging Face hub; without a `revision` they can be planned only."""

    name: Name
    source: Literal["huggingface"]
    repository: str
    revision: Commit | None
    fetch: FetchSettings


class StoredModel(Strict):
    """Source weights in MLCommons' storage: `repository` is the path in its bucket, `uri` the
    address of the .uri file that leads there; without one they can be planned only."""

    name: Name
    source: Literal["mlcommons"]
    repository: str
    uri: str | None
    fetch: FetchSettings


class LocalModel(Strict):
    """Source weights in a directory of this machine; `repository` says what they are a copy of."""

    name: Name
    source: Literal["local"]
    repository: str
    path: str
    fetch: FetchSettings


def _where_it_is(model: Any) -> str:
    return str(model.get("source", "embedded")) if isinstance(model, Mapping) else "embedded"


class ModelConfig(
    RootModel[
        Annotated[
            Annotated[EmbeddedModel, Tag("embedded")]
            | Annotated[HubModel, Tag("huggingface")]
            | Annotated[StoredModel, Tag("mlcommons")]
            | Annotated[LocalModel, Tag("local")],
            Discriminator(_where_it_is),
        ]
    ]
):
    """Where source weights come from."""


def _how_it_is_made(image: Any) -> str:
    return "recipe" if isinstance(image, Mapping) and "stack" in image else "unknown"


class PlannedImage(
    RootModel[
        Annotated[
            Annotated[ImageConfig, Tag("recipe")] | Annotated[ContainerConfig, Tag("unknown")],
            Discriminator(_how_it_is_made),
        ]
    ]
):
    """An image that can be planned: with a recipe of ours, or with what is known of another's."""


class DatasetConfig(Strict):
    """Prompts of a generated benchmark, by its recipe; counts are numbers of prompts."""

    name: Name
    recipe: Literal["rehearsal"]
    evaluation_count: Positive
    calibration_count: Positive


MISSING = "N/A"
"""Stands in a description for what nobody knows; the checker takes it for a value."""


VALUES: Mapping[str, tuple[str, ...]] = {
    "status": STATUSES,
    "system_type": tuple(SYSTEM_TYPES),
    "division": DIVISIONS,
}
"""Legal values of a description's fields."""


class RemoteDatasetConfig(Strict):
    """A dataset of MLCommons; `files` maps the name of each file to its md5, null if unknown."""

    name: Name
    recipe: Literal[
        "open-orca", "mixtral-15k", "llama3.1-405b", "coco-2014", "cnn-dailymail", "gpt-oss-120b"
    ]
    evaluation_count: Positive
    calibration_count: Positive
    files: dict[str, str | None]


class DescribeConfig(Strict):
    """The fields of a system description that a probe can't know; the probe fills the rest.

    `required`: the fields that the round demands, in the order they are written.
    """

    name: Name
    fields: dict[str, str]
    required: tuple[str, ...]

    @model_validator(mode="after")
    def the_checker_takes_the_fields(self) -> Self:
        for name in self.required:
            if not self.fields.get(name, MISSING) and name not in MAY_BE_EMPTY:
                raise ValueError(f"{name} is empty, which the checker refuses; N/A is allowed")
        for name, legal in VALUES.items():
            value = self.fields.get(name, legal[0])
            if (value.lower() if name == "status" else value) not in legal:
                raise ValueError(f"{name} is {value!r}, the checker knows {', '.join(legal)}")
        for name in COUNTS:
            if not self.fields.get(name, "0").isdecimal():
                raise ValueError(f"{name} is {self.fields[name]!r}, it has to be a whole number")
        return self
