"""Configuration of the steps that make what runs need: environments, images, weights, prompts,
the description of the system."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, RootModel, Tag, model_validator
from typing_extensions import Self

from steps.base.strict import Name, Positive, Strict
from steps.config.compression import ContainerConfig
from steps.config.container import ImageConfig
from steps.config.fetch import Commit, FetchSettings, Md5, Sha256
from steps.config.scale import Mark
from steps.mlperf.rounds import COUNTS, DIVISIONS, MAY_BE_EMPTY, STATUSES, SYSTEM_TYPES


class EnvironmentConfig(Strict):
    """A native environment.

    `name`: of its lock, `envs/<name>.lock`. `probes`: modules that are imported to prove it.
    """

    name: Name
    probes: tuple[str, ...]


class EmbeddedModel(Strict):
    """Source weights in this repository.

    `name`: of the model. `embedded`: a directory of the repository that carries a manifest.
    """

    name: Name
    embedded: str


class HubModel(Strict):
    """Weights on a Hugging Face hub.

    `name`: of the model; `conf/capacity.yaml` knows its size by it. `repository`: its OWNER/NAME on
    the hub. `revision`: a commit; null: the head of `main` is looked up once, before the first run,
    and kept in results/revisions.json. `branch`: says that `revision` is from there. `fetch`: how
    it is fetched. `format`: of weights that are quantized already, null for source weights.
    `first_shard_md5`: of the first file of weights, where that is published.
    """

    name: Name
    source: Literal["huggingface"]
    repository: str
    revision: Commit | None
    fetch: FetchSettings
    branch: Literal["main"] | None = None
    format: Literal["fp8", "mxfp4"] | None = None
    first_shard_md5: Md5 | None = None


class StoredModel(Strict):
    """Source weights in MLCommons' storage.

    `name`: of the model; `conf/capacity.yaml` knows its size by it. `repository`: the path in its
    bucket. `uri`: the address of the .uri file that leads there; null: they can be planned only.
    `fetch`: how they are fetched.
    """

    name: Name
    source: Literal["mlcommons"]
    repository: str
    uri: str | None
    fetch: FetchSettings


class LocalModel(Strict):
    """Source weights in a directory of this machine.

    `name`: of the model; `conf/capacity.yaml` knows its size by it. `repository`: says what they
    are a copy of. `path`: of the directory. `fetch`: as for other sources; a directory needs
    nothing of it.
    """

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


GeneratedRecipe = Literal[
    "rehearsal", "rehearsal-mixed", "shapes", "choices-low", "choices-high", "choices-letters"
]
"""Those of steps/prepare/rehearsal."""


class GeneratedDataset(Strict):
    """Prompts of a generated benchmark.

    `name`: of the benchmark that they are for. `recipe`: what generates them
    (steps/prepare/rehearsal). `evaluation_count`: prompts that runs answer. `calibration_count`:
    prompts that warm engines up and calibrate weights.
    """

    name: Name
    recipe: GeneratedRecipe
    evaluation_count: Positive
    calibration_count: Positive


class CaptionDataset(Strict):
    """Captions that MLCommons publishes as text, with what their pictures are made and judged by.

    `name`: of the model that they are for. `recipe`: says that they are MLCommons'. `path`: a
    directory of this machine, and of folders below it, that has the files, as text_to_image/ of
    MLCommons' repository has; null: they can be planned only. `files`: md5 of each, null to take
    any. `evaluation_count`: the first captions of them. `calibration_count`: as often the one that
    engines warm up with.
    """

    name: Name
    recipe: Literal["coco-2014"]
    evaluation_count: Positive
    calibration_count: Positive
    path: str | None
    files: dict[str, Md5 | None]


class DatasetFile(Strict):
    """One file of a ready-made dataset, and what is published of it.

    `uri`: the .uri file of MLCommons' storage, or of a mirror, that leads to it. `names`: what it
    is called, MLCommons' own name first; a file under such a name with .gz behind it is unzipped.
    `md5`, `sha256`: of the unzipped file, null where nobody published one: then the digest that the
    source lists is checked alone. `rows`: its samples, null if nobody says.
    """

    uri: str
    names: tuple[str, ...]
    md5: Md5 | None
    sha256: Sha256 | None
    rows: Positive | None

    @property
    def pinned(self) -> bool:
        return self.md5 is not None or self.sha256 is not None


class FileSource(Strict):
    """Where one file of a ready-made dataset is fetched from.

    `uri`: the .uri file that leads to it. `names`: what it may be called there, MLCommons' own name
    first.
    """

    uri: str
    names: tuple[str, ...]


class DatasetFilesConfig(Strict):
    """The files of a ready-made dataset, fetched as they are.

    `name`: of the model that they are for; messages name it. `recipe`: the dataset's form.
    `evaluation`: the file that runs are on. `calibration`: the file that weights are calibrated on.
    `fetch`: how both are fetched.
    """

    name: Name
    recipe: str
    evaluation: FileSource
    calibration: FileSource
    fetch: FetchSettings


class ReadyDataset(Strict):
    """A dataset that MLCommons publishes tokenized.

    `name`: of the model that it is for. `recipe`: its columns and their checks
    (steps/prepare/ready.py). `evaluation_count`: the first so many evaluation samples are used.
    `calibration_count`: at most so many of the others. `path`: a directory of this machine, and of
    folders below it, that has the files; null: they are fetched. `evaluation`: the file that runs
    are on. `calibration`: the file that weights are calibrated on. `fetch`: how both are fetched.
    """

    name: Name
    recipe: Literal["open-orca", "mixtral-15k", "llama3.1-405b", "cnn-dailymail"]
    evaluation_count: Positive
    calibration_count: Positive
    path: str | None
    evaluation: DatasetFile
    calibration: DatasetFile
    fetch: FetchSettings


def _where_prompts_come_from(dataset: Any) -> str:
    given = dataset if isinstance(dataset, Mapping) else {}
    if given.get("recipe") == "coco-2014":
        return "captions"
    return "ready" if "evaluation" in given else "generated"


class DatasetConfig(
    RootModel[
        Annotated[
            Annotated[GeneratedDataset, Tag("generated")]
            | Annotated[ReadyDataset, Tag("ready")]
            | Annotated[CaptionDataset, Tag("captions")],
            Discriminator(_where_prompts_come_from),
        ]
    ]
):
    """The prompts of a benchmark: generated here, or as MLCommons publishes them."""


MISSING = "N/A"
"""Stands in a description for what nobody knows; the checker takes it for a value."""


VALUES: Mapping[str, tuple[str, ...]] = {
    "status": STATUSES,
    "system_type": tuple(SYSTEM_TYPES),
    "division": DIVISIONS,
}
"""Legal values of a description's fields."""


class RemoteDatasetConfig(Strict):
    """A dataset that can be planned only.

    `name`: of the model that it is for. `recipe`: that this version doesn't read.
    `evaluation_count`: samples that runs would answer. `calibration_count`: samples that weights
    would be calibrated on. `files`: md5 of each, null if unknown.
    """

    name: Name
    recipe: Literal["gpt-oss-120b"]
    evaluation_count: Positive
    calibration_count: Positive
    files: dict[str, str | None]


class Rehearsed(Strict):
    """A system that another machine stands in for.

    `id`: its name in the submission tree. `hardware`: the fields that its hardware's file gives.
    """

    id: str
    hardware: dict[str, str]


class DescribeConfig(Strict):
    """The description of a system: what a probe can't know; the probe fills the rest.

    `name`: of the system. `fields`: values by MLCommons' names; they win over what is probed, but
    those of another machine are refused. `required`: the fields that the round demands, in the
    order they are written. `rehearsal`: the system is another one than this machine, which stands
    in for it. `rehearsed`: what is known of that system, which its fields may not contradict.
    """

    name: Name
    fields: dict[str, str]
    required: tuple[str, ...]
    rehearsal: Mark | None = None
    rehearsed: Rehearsed | None = None

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
