"""Source weights as an artifact: embedded in the repository, or fetched."""

from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Workspace
from steps.base.step import main
from steps.config.artifacts import EmbeddedModel, HubModel, LocalModel, ModelConfig, StoredModel
from steps.config.fetch import FetchConfig, HubSource, LocalSource, MlcommonsSource
from steps.config.weights import WeightsResult
from steps.prepare import embedded, prequantized
from steps.prepare.checkpoint.whole import check_whole
from steps.prepare.fetch.fetch import fetch
from steps.prepare.fetch.revisions import refuse_another


def step(
    config: ModelConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Every file is checked against a digest, from every source (steps/prepare/fetch); a local
    directory, which may have no digests, must be complete.
    """
    model = config.root
    if isinstance(model, EmbeddedModel):
        recipe = embedded.copy(model.embedded, workspace.directory)
        made = WeightsResult(name=model.name, simulated=False)
        workspace.result = made.but(recipe=recipe).dumped()
        return
    if isinstance(model, LocalModel) and (home := Path(model.path).expanduser()).is_dir():
        check_whole(home)
    if isinstance(model, HubModel):
        refuse_another(model)
    made = fetch(_order(model), workspace, console, inputs.get("mirror"))
    if isinstance(model, HubModel):
        prequantized.check(model, workspace.directory)
        made = made.but(revision=model.revision)
        if model.format is not None:
            made = made.but(format=model.format, repository=model.repository)
    workspace.result = made.dumped()


def _order(model: HubModel | StoredModel | LocalModel) -> FetchConfig:
    settings = model.fetch
    return FetchConfig(
        name=model.name,
        source=_source(model),
        offline=settings.offline,
        connections=settings.connections,
        stall_limit_s=settings.stall_limit_s,
        attempts=settings.attempts,
        retry_wait_s=settings.retry_wait_s,
        hub_cache=settings.hub_cache,
    )


def _source(
    model: HubModel | StoredModel | LocalModel,
) -> HubSource | MlcommonsSource | LocalSource:
    if isinstance(model, LocalModel):
        return LocalSource(kind="local", path=model.path, sha256={})
    if isinstance(model, StoredModel):
        if model.uri is None:
            raise UserError(f"no .uri of {model.repository} is given; set benchmark.model.uri")
        return MlcommonsSource(kind="mlcommons", uri=model.uri, checksums_sha256=None, headers={})
    if model.revision is None:
        raise UserError(
            f"no revision of {model.repository} is known; ./reproduce looks it up before it "
            "starts, or set benchmark.model.revision"
        )
    return HubSource(
        kind="hub",
        endpoint=model.fetch.endpoint,
        repository_type="model",
        repository=model.repository,
        revision=model.revision,
        include=model.fetch.include,
        exclude=model.fetch.exclude,
        token=model.fetch.token,
    )


if __name__ == "__main__":
    main("model", ModelConfig, step)
